"""Machines with a kernel of their own, emulated by QEMU. Runs in the supervisor.

A machine's emulator is a guest's program: it runs where a guest without this kernel would, in
namespaces of its own, and its only way out is the descriptor of a tap, which is the guest's port.
A lab without machines imports nothing of this folder.
"""
