"""A lab's control plane in one process, on a seeded virtual clock, under faults.

It runs the agents, controllers, placement, relocation, healing and impact that run in a lab, not a
model of them. Simulated are the clock, the network between processes, processes that crash and
pause, and the hardware below. It opens no socket, starts no process and needs no privilege. One
seed gives one run, again and again.

- `loop`: the event loop, whose time jumps to what is due next; and processes.
- `network`: unix sockets between simulated processes, with delays, cuts, doubles and losses.
- `cluster`: nodes, their agents, and the lab's side of them; `stand_ins`: the kernel below.
- `workload`, `faults`: what users ask, and what goes wrong, drawn from the seed.
- `checkers`: one invariant each. `mutants`: changes to the code that they have to catch.
"""
