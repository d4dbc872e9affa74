"""The guests: power, first process, /etc/hosts, tenant interface, and their programs' output.

Runs in the sandbox. It does what it is told to a guest, one action after another; when and why is
decided in `netemu.supervisor.control`.
"""
