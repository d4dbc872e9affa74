"""Impaired wires: what is to happen to the frames of a guest's wire, and the relay that does it.

The core (`terms`, `plan`, `fate`, `trace`) is pure: time and seeds are arguments. `relay` is the
process that carries the frames; it runs in the sandbox, only while a wire is impaired, and holds no
privilege. README.md says how a relay gets into a wire.
"""
