"""Faults on purpose: kills, stops, failures and limits in a lab under load, and what held.

Runs in the user's process, outside the sandbox. `plan` draws the faults from a seed; it is pure, so
a seed and a lab's shape give the same plan again. `faults` carries them out on the lab's processes,
`load` sends commands and polls meanwhile, `invariants` judges what was acknowledged and what guests
were told. It never touches a process that is not of the lab that it was given.
"""
