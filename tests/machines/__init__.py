"""What `netns-scripts/test-machines` runs: a lab on three machines, struck while it is used.

`stage` makes the machines and the servers of the store; `user` uses the lab on one machine, in a
process of its own; `judge` reads what all users saw; `play` strikes, and prints the outcome.
"""

from tests.machines.play import main

__all__ = ["main"]
