"""The nodes: bridges and guarded ports, address claims, and the host agent and responder of each.

Runs in the sandbox. It never decides which node a guest is on.
"""
