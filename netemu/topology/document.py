"""A YAML text with the line of every value in it, so that errors can point at one."""

from collections.abc import Hashable
from typing import Any

import yaml

from netemu.errors import BadInput

Path = tuple[str | int, ...]

_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"


class Document:
    """The value of a YAML text, and where in it each part stands. Raises BadInput."""

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.value: Any = None
        self._lines: dict[str, int] = {}
        try:
            loader = yaml.SafeLoader(text)
            try:
                root = loader.get_single_node()
                if root is None:
                    raise self.error("", "is empty: a lab needs at least 'nodes:'")
                self._note(root, (), set())
                self.value = loader.construct_document(root)
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line = f"line {mark.line + 1}: " if mark else ""
            raise BadInput(f"{source}: {line}not YAML: {error.problem}") from None
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
            raise BadInput(f"{source}: not YAML: {str(error).splitlines()[0]}") from None

    def error(self, place: str, text: str) -> BadInput:
        """One line: file, line, place, and what is wrong there."""
        known = place
        while known and known not in self._lines:  # what is missing stands in what surrounds it
            known = known[: max(known.rfind("."), known.rfind("["), 0)]
        line = self._lines.get(known)
        parts = [self.source, *([f"line {line}"] if line else []), *([place] if place else [])]
        return BadInput(f"{': '.join(parts)}: {text}")

    def _note(self, node: yaml.Node, path: Path, above: set[int]) -> None:
        """Write down the line of each value; YAML lets a key stand twice, a lab file does not."""
        place = _place(path)
        self._lines.setdefault(place, node.start_mark.line + 1)
        if id(node) in above:
            raise self.error(place, "refers to itself")
        above = above | {id(node)}
        if isinstance(node, yaml.ScalarNode) and not _is_text(node.value):
            raise self.error(place, "holds half a character, a surrogate alone")
        if isinstance(node, yaml.MappingNode):
            keys: dict[Hashable, int] = {}
            for key, value in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else "?"
                if not _is_text(name):
                    raise self.error(place, "a key holds half a character, a surrogate alone")
                inner = _place((*path, name))
                line = key.start_mark.line + 1
                if name in keys:
                    self._lines[inner] = line
                    raise self.error(
                        inner, f"stands twice (first on line {keys[name]}); names must differ"
                    )
                keys[name] = line
                self._lines[inner] = line
                # As they are written: 0123 is no number, and no is not false.
                if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                    key.tag = _TEXT
                if isinstance(value, yaml.ScalarNode) and _are_properties(path):
                    value.tag = _TEXT
                self._note(value, (*path, name), above)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._note(value, (*path, index), above)


def _is_text(text: str) -> bool:
    """Whether it can be written in UTF-8: YAML lets an escape stand for half a character."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _place(path: Path) -> str:
    """How errors call what is at `path`: nodes.node1.guests[0].name."""
    pieces = (f"[{one}]" if isinstance(one, int) else f".{one}" for one in path)
    return "".join(pieces).removeprefix(".")


def _are_properties(path: Path) -> bool:
    """Whether the mapping at `path` is one of guests' properties: of a lab, a node or a guest."""
    if path[-1:] != ("properties",):
        return False
    return len(path) == 1 or (path[0] == "nodes" and len(path) in (3, 5))
