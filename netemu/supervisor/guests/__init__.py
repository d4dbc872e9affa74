"""What hangs on a port: `machine` is the seam, `namespace_machine` its one kind so far, and
`kinds` chooses.

Beside it, what a machine is given: its first process, its /etc/hosts, a place for what its programs
say; and the table of powers. Runs in the sandbox. It knows no node: `netemu.supervisor.nodes` puts
machines on ports, and when and why is decided in `netemu.supervisor.control`.
"""
