"""What the processes of a lab say to each other, and where they meet.

Shared by both sides: `netemu.client` (outside the sandbox) and `netemu.supervisor` (inside). It
holds the order for a lab, the progress pipe, the control socket, the runtime directory, and how a
lab file is read. It never builds, enters or ends anything.
"""
