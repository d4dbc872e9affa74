"""Carries a lab's tenant network from machine to machine: VXLAN (RFC 7348) in UDP, with a key.

`sealed` and `switch` are pure; `carrier` is the process; `messages` is what it is told.
"""
