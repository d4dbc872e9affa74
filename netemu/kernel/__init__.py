"""The only room that speaks to the kernel: namespaces, netlink, nft, sysctl, raw sockets.

Every function here does one thing to the kernel and raises `KernelError` when it is refused. It
knows no lab and no policy beyond what the guard's template says, and it never acts on the
namespace in which the machine itself lives: callers are inside a sandbox, or hold a descriptor of
a namespace of the lab.
"""
