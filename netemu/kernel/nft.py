"""Loads rules by the program `nft`: one transaction, which the kernel checks as a whole."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from typing import Final

from netemu.errors import MachineCannot
from netemu.kernel import exhaustion
from netemu.kernel.namespaces import inside

# Where Debian puts nft is not in an ordinary user's PATH.
_PATHS = ("/usr/sbin", "/sbin", "/usr/local/sbin")
# nft takes milliseconds; for the thousands of ports of a large lab, seconds.
_PATIENCE: Final = 60.0

# From this release on, a port's chain also holds for a later link of the same name. Before, it ends
# with the link that it was loaded for.
_FOLLOWING: Final = (6, 16)


def find() -> str:
    """The path of nft. Raises MachineCannot, which says how to install it."""
    found = shutil.which("nft") or shutil.which("nft", path=":".join(_PATHS))
    if found is None:
        raise MachineCannot("nft is not installed: run 'sudo apt-get install nftables'")
    return found


@cache
def follows_names() -> bool:
    """Whether a new link is guarded by the rules loaded for an earlier one of its name."""
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= _FOLLOWING


def load(rules: str, net: int) -> None:
    """Load `rules` in the network namespace of `net`, as one transaction."""
    words = _refusal(rules, net)
    if words:
        raise MachineCannot(f"the guard was refused by this kernel or nft: {words}")


def unload(rules: str, net: int) -> None:
    """Run the commands of `one_less`.

    On some kernels the chains of a link that its guest has destroyed are gone. Then the commands
    are run one by one, and errors ignored.
    """
    if _refusal(rules, net):
        for line in rules.splitlines():
            _refusal(line, net)


def unload_all(pieces: Sequence[str], net: int) -> None:
    """Run the commands of `one_less` for many ports, in one transaction if possible."""
    if pieces and _refusal("\n".join(pieces), net):
        for rules in pieces:
            unload(rules, net)


def _refusal(rules: str, net: int) -> str:
    """Why nft refuses `rules`; empty if it has loaded them."""
    program = find()
    try:
        with inside(net):
            done = subprocess.run(
                [program, "-f", "-"], input=rules, capture_output=True, text=True, timeout=_PATIENCE
            )
    except subprocess.TimeoutExpired:  # it has been killed
        return f"nft did not end within {_PATIENCE:g} s"
    except OSError as error:
        raise MachineCannot(f"{program}: cannot be run: {exhaustion.words(error)}") from None
    return " ".join(done.stderr.split())[:500] or "no word" if done.returncode != 0 else ""
