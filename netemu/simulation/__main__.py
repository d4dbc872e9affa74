"""`python -m netemu.simulation FIRST COUNT [MUTANT]`: a line of JSON for each seed.

A process of its own, so that a mutant is planted before the code is imported.
"""

import json
import sys
from dataclasses import asdict

from netemu.simulation import mutants


def main() -> None:
    """Run seeds one after the other, until nobody reads the output any more."""
    first, count, *planted = sys.argv[1:]
    for name in planted:
        mutants.plant(mutants.BY_NAME[name])
    from netemu.simulation.run import forked

    for seed in range(int(first), int(first) + int(count)):
        try:
            print(json.dumps(asdict(forked(seed))), flush=True)  # noqa: T201  to the caller
        except BrokenPipeError:
            return


if __name__ == "__main__":
    main()
