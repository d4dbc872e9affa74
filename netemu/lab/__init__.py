"""Labs: brought up in a bottle of namespaces, watched over, asked, and taken down.

The bottle is held by one process, the supervisor, which is PID 1 in it: when it ends, in whatever
way, the kernel takes back every process, namespace, wire and mount that the lab had. This room
never creates anything in the machine's own network namespace, and never ends a process that is
not of the lab.
"""
