"""Reads the code blocks of a README: what is run, and what it is said to print."""

import re
from dataclasses import dataclass
from pathlib import Path

# A block, and before it the reason for which it is not run, if there is one.
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n+)?"
    r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language ("" for none), text, line, and why it is not run, if so."""

    readme: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def id(self) -> str:
        return f"{self.readme.parent.name}:{self.line}"


def blocks(readme: Path) -> list[Block]:
    text = readme.read_text()
    return [
        Block(
            readme,
            text[: found.start("text")].count("\n"),
            found["language"],
            found["text"],
            found["reason"],
        )
        for found in _BLOCK.finditer(text)
    ]


def as_printed(expected: str, printed: str) -> bool:
    """Whether `expected`, in which … stands for anything, is in what was printed, line by line."""
    lines = [_pattern(line) for line in expected.strip("\n").splitlines()]
    pattern = "\n".join(lines)
    text = "\n".join(line.rstrip() for line in printed.splitlines())
    return re.search(pattern, text) is not None


def _pattern(line: str) -> str:
    if line.strip() == "…":  # any number of lines
        return r"(?:.*\n)*?.*"
    return ".*".join(re.escape(part) for part in line.rstrip().split("…"))
