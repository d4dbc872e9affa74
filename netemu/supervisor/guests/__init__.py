"""What hangs on a port. `machine` is the seam; its kinds are `namespace_machine` and `qemu`, and
`kinds` chooses.

Beside them is what a machine is given: its first process, its /etc/hosts, its logs; and the table
of powers. Runs in the sandbox. It knows no node: `netemu.supervisor.nodes` puts machines on ports,
and `netemu.supervisor.control` decides when and why.
"""
