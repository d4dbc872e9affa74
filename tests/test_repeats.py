"""No two places in the production code share six lines or more."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
SHARED: Final = 6
# Imports of one line each say what a module uses, and cannot be said once for two modules.
_NO_CODE: Final = re.compile(r"#|import |from \S+ import (?!\()|\W*$")


def repeats(sources: dict[str, str]) -> list[str]:
    """The places, as `name:line = name:line`, where SHARED lines of code in a row are equal."""
    seen: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, text in sources.items():
        lines = enumerate((line.strip() for line in text.splitlines()), start=1)
        code = [(number, line) for number, line in lines if not _NO_CODE.match(line)]
        for begin in range(len(code) - SHARED + 1):
            run = code[begin : begin + SHARED]
            seen[tuple(line for _, line in run)].append(f"{name}:{run[0][0]}")
    return [" = ".join(places) for places in seen.values() if len(places) > 1]


def test_no_two_places_share_six_lines():
    paths = [path for package in ("netemu", "hostagent") for path in (ROOT / package).rglob("*.py")]
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in paths}

    assert len(sources) > 200
    assert repeats(sources) == []


def test_six_equal_lines_are_found_and_five_are_not():
    lines = [f"a = {number}" for number in range(SHARED)]
    one = "\n".join(["import a", *lines])
    other = "\n\n".join(["import b", "# of the same", *(f"    {line}" for line in lines)])

    assert repeats({"one": one, "other": other}) == ["one:2 = other:5"]
    assert repeats({"one": one, "other": "\n".join(lines[1:])}) == []
