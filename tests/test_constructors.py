"""Constructors do no I/O: what opens, connects or starts something is a method that says so."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
# Modules whose functions are the kernel's, and names of calls that are I/O in any module.
_KERNEL: Final = (["os"], ["socket"], ["subprocess"], ["select"], ["shutil"], ["tempfile"])
_CALLS: Final = frozenset(
    ["open", "bind", "connect", "mkdir", "unlink", "fork", "Popen", "read_text", "write_text"]
)
_PURE: Final = frozenset({"os.fspath", "os.getpid", "os.strerror"})
# What is set of a descriptor that is given.
_FLAGS: Final = frozenset({"os.set_blocking", "os.set_inheritable"})


def io_in_constructors(source: str) -> list[str]:
    """The calls in `__init__` methods that are I/O, as `Class: call`, also by way of the class's
    own methods and the module's functions.
    """
    module = ast.parse(source)
    functions = {one.name: one for one in module.body if isinstance(one, ast.FunctionDef)}
    found: list[str] = []
    for kind in ast.walk(module):
        if isinstance(kind, ast.ClassDef):
            own = {f"self.{one.name}": one for one in kind.body if isinstance(one, ast.FunctionDef)}
            known = {**functions, **own}
            found += [f"{kind.name}: {call}" for call in _reached("self.__init__", known, set())]
    return [call for call in found if _is_io(call.partition(": ")[2])]


def _reached(name: str, known: dict[str, ast.FunctionDef], seen: set[str]) -> Iterator[str]:
    """All calls in a function, and in those of the module that it calls."""
    if name in seen or name not in known:
        return
    seen.add(name)
    for call in ast.walk(known[name]):
        if isinstance(call, ast.Call):
            called = ast.unparse(call.func)
            yield called
            yield from _reached(called, known, seen)


def _is_io(called: str) -> bool:
    *modules, last = called.split(".")
    return (
        called not in _PURE | _FLAGS
        and last != "__init__"
        and (modules[:1] in _KERNEL or last in _CALLS)
    )


def test_no_constructor_does_io():
    found = {
        str(path.relative_to(ROOT)): calls
        for package in ("netemu", "hostagent")
        for path in (ROOT / package).rglob("*.py")
        if "def __init__(" in (source := path.read_text()) and (calls := io_in_constructors(source))
    }
    assert found == {}


def test_io_in_a_constructor_is_found():
    source = "class A:\n def __init__(self):\n  self.s = socket.socket()\n  self.f = path.open()\n"
    assert io_in_constructors(source) == ["A: socket.socket", "A: path.open"]
    assert io_in_constructors(source.replace("__init__", "open")) == []


def test_io_by_way_of_a_method_and_a_function_is_found():
    source = "class A:\n def __init__(self):\n  self.b()\n def b(self):\n  c()\n"
    assert io_in_constructors(f"{source}def c():\n os.fork()\n") == ["A: os.fork"]
    assert io_in_constructors(f"{source}def c():\n d()\n") == []
