"""The walks in netemu/README.md lead through files that are there, and none goes back to one."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "netemu" / "README.md").read_text()
SECTION = TEXT.partition("## Five walks")[2].partition("\n## ")[0]
WALKS = {
    title: [file for line in steps for file in re.findall(r"`([\w/.]+)`", line.partition(":")[0])]
    for title, *steps in (part.splitlines() for part in re.split(r"\n(?=\*\*)", SECTION)[1:])
}


def test_there_are_five() -> None:
    assert len(WALKS) == 5
    assert all(len(files) >= 6 for files in WALKS.values())


@pytest.mark.parametrize("title", WALKS)
def test_a_walk_passes_files_that_are_there_and_none_twice(title: str) -> None:
    files = WALKS[title]
    assert len(files) == len(set(files))
    for file in files:
        assert (ROOT / file).exists() or (ROOT / "netemu" / file).exists(), file
