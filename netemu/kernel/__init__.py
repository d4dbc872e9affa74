"""The only room that speaks to the kernel: namespaces, netlink, nft, sysctl, raw sockets. Its code
runs in the supervisor, in the helpers of the supervisor, and in guests' first processes.

Each function does one thing to the kernel, and raises `KernelError` when the kernel refuses. The
room knows no lab, and no policy beyond the guard's templates. It never acts on the machine's own
network namespace: its callers are inside a sandbox, or hold a descriptor of one of the lab's
namespaces.
"""
