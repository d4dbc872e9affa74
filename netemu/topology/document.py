"""A YAML text with the line of every value, so that errors can point at it. Pure.

Any text becomes a value or raises BadInput, within limits of time and memory. Variables, ${NAME} or
${NAME:-default}, are replaced in values, not in the text: a variable's value cannot become YAML.
"""

import re
from collections.abc import Hashable, Mapping
from typing import Any, Final

import yaml

from netemu.errors import BadInput

Path = tuple[str | int, ...]

# A lab of ten thousand guests with properties of their own has a third of this.
MAX_CHARACTERS: Final = 2**20
# Values after aliases are followed: 297 bytes of aliases can stand for a billion.
MAX_VALUES: Final = 250_000
# The deepest value of a lab file is at 7.
MAX_DEPTH: Final = 20

_TEXT = "tag:yaml.org,2002:str"
_BINARY = "tag:yaml.org,2002:binary"
_MERGE = "tag:yaml.org,2002:merge"
_SET = "tag:yaml.org,2002:set"

# A variable, or the two ways to write what would otherwise be one or a stand-in.
_VARIABLE: Final = re.compile(
    r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}\n]*)?\}|\ue000"
)
# The stand-in for a variable while YAML is read: text without a meaning in YAML.
_STAND_IN: Final = re.compile("\ue000([0-9]+)\ue001")


class _Refused(Exception):
    """The text is YAML, but cannot be a lab file."""

    def __init__(self, text: str, mark: Any) -> None:
        super().__init__(text)
        self.mark = mark


class Document:
    """The value of a YAML text, and the line of each part. Raises BadInput.

    `variables` are the values for ${NAME}; None leaves such text as it is.
    """

    def __init__(self, text: str, source: str, variables: Mapping[str, str] | None = None) -> None:
        self.source = source
        self.value: Any = None
        self._lines: dict[str, int] = {}
        if len(text) > MAX_CHARACTERS:
            raise self.error("", f"is longer than {MAX_CHARACTERS:,} characters")
        try:
            self._read(text, variables)
        except _Refused as error:
            raise BadInput(f"{source}: {_line(error.mark)}{error}") from None
        except yaml.MarkedYAMLError as error:
            raise BadInput(
                f"{source}: {_line(error.problem_mark)}not YAML: {error.problem}"
            ) from None
        except yaml.YAMLError as error:
            raise BadInput(f"{source}: not YAML: {str(error).partition(chr(10))[0]}") from None

    def _read(self, text: str, variables: Mapping[str, str] | None) -> None:
        loader = _Loader(text, variables)
        try:
            root = loader.get_single_node()
            if root is None:
                raise self.error("", "is empty")
            _measure(root, {})
            self._note(root, ())
            self.value = loader.construct_document(root)
        finally:
            loader.dispose()

    def error(self, place: str, text: str) -> BadInput:
        """One line: file, line, place, and what is wrong there."""
        known = place
        while known and known not in self._lines:  # a missing value: its parent
            known = known[: max(known.rfind("."), known.rfind("["), 0)]
        line = self._lines.get(known)
        parts = [self.source, *([f"line {line}"] if line else []), *([place] if place else [])]
        return BadInput(f"{': '.join(parts)}: {text}")

    def _note(self, node: yaml.Node, path: Path) -> None:
        """Record the line of each value. YAML allows a key twice; a lab file does not."""
        place = _place(path)
        self._lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            self._require_text(node.value, place, "")
        elif isinstance(node, yaml.MappingNode):
            keys: dict[Hashable, int] = {}
            for key, value in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else "?"
                self._require_text(name, place, "a key ")
                inner = _place((*path, name))
                line = key.start_mark.line + 1
                if name in keys:
                    self._lines[inner] = line
                    raise self.error(
                        inner, f"stands twice (first on line {keys[name]}); names must differ"
                    )
                keys[name] = line
                self._lines[inner] = line
                # Keep numbers as they are written: 0123 is text, and so is no.
                if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                    key.tag = _TEXT
                scalar = isinstance(value, yaml.ScalarNode) and value.tag != _BINARY
                if scalar and _are_properties(path):
                    value.tag = _TEXT
                self._note(value, (*path, name))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._note(value, (*path, index))

    def _require_text(self, text: str, place: str, what: str) -> None:
        """Refuse what YAML's escapes allow: half a character, and NUL, which ends a string in C."""
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise self.error(place, f"{what}holds half a character, a surrogate alone")
        if "\0" in text:
            raise self.error(place, f"{what}holds a NUL character")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits and variables."""

    def __init__(self, text: str, variables: Mapping[str, str] | None) -> None:
        self._depth = 0
        self._room = MAX_CHARACTERS
        self._variables = variables or {}
        self._written: list[re.Match[str]] = []
        if variables is not None:
            text = _VARIABLE.sub(self._stand_in, text)
        super().__init__(text)

    def _stand_in(self, found: re.Match[str]) -> str:
        self._written.append(found)
        return f"\ue000{len(self._written) - 1}\ue001"

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Build a value, and those within it."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Refused(f"is nested more than {MAX_DEPTH} deep", self._next().start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_scalar_node(self, anchor: dict[Any, yaml.Node]) -> yaml.ScalarNode:
        """Build a text or number. An unquoted variable's value is read as if it stood there."""
        event = self._next()
        event.value = _STAND_IN.sub(
            lambda found: self._expanded(self._written[int(found[1])], event.start_mark),
            event.value,
        )
        return super().compose_scalar_node(anchor)

    def _next(self) -> Any:
        return self.peek_event()  # type: ignore[no-untyped-call]

    def _expanded(self, written: re.Match[str], mark: Any) -> str:
        name = written["name"]
        if name is None:
            return written[0].removeprefix("$")
        value = self._variables.get(name, "")
        if not value and written["default"] is not None:
            value = written["default"][2:]
        elif name not in self._variables:
            raise _Refused(
                f"the variable {name} is not set; ${{{name}:-text}} has a default, "
                f"and $${{{name}}} stands for ${{{name}}}",
                mark,
            )
        self._room -= len(value)
        if self._room < 0:
            raise _Refused(f"variables stand for more than {MAX_CHARACTERS:,} characters", mark)
        return value

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Make a Python value. PyYAML's constructors raise any error for text that does not fit."""
        if node.tag == _SET:  # a set has no order, but guests have one
            raise _Refused("a set cannot stand in a lab file; write a list", node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, _Refused):
            raise
        except Exception:
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            shown = repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else "this"
            raise _Refused(f"{shown} is no !!{kind}", node.start_mark) from None


def _measure(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Count the values and their depth, an alias's as often as it is used; both have limits."""
    if id(node) in known:
        if not known[id(node)][0]:
            raise _Refused("refers to itself", node.start_mark)
        return known[id(node)]
    known[id(node)] = 0, 0  # being counted
    count, depth = 1, 1
    for one in node.value if isinstance(node, yaml.CollectionNode) else ():
        for inner in one if isinstance(one, tuple) else (one,):
            values, levels = _measure(inner, known)
            count, depth = count + values, max(depth, 1 + levels)
    if count > MAX_VALUES:
        raise _Refused(f"stands for more than {MAX_VALUES:,} values", node.start_mark)
    if depth > MAX_DEPTH:
        raise _Refused(f"is nested more than {MAX_DEPTH} deep", node.start_mark)
    known[id(node)] = count, depth
    return count, depth


def _line(mark: yaml.Mark | None) -> str:
    return f"line {mark.line + 1}: " if mark else ""


def _place(path: Path) -> str:
    """How errors name the value at `path`: nodes.node1.guests[0].name."""
    pieces = (f"[{one}]" if isinstance(one, int) else f".{one}" for one in path)
    return "".join(pieces).removeprefix(".")


def _are_properties(path: Path) -> bool:
    """Whether the mapping at `path` holds guests' properties: of a lab, a node or a guest."""
    if path[-1:] != ("properties",):
        return False
    return len(path) == 1 or (path[0] == "nodes" and len(path) in (3, 5))
