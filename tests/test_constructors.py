"""Constructors do no I/O: what opens, connects or starts something is a method that says so."""

import ast
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
    """The calls in `__init__` methods that are I/O, as `Class: call`."""
    return [
        f"{kind.name}: {called}"
        for kind in ast.walk(ast.parse(source))
        if isinstance(kind, ast.ClassDef)
        for method in kind.body
        if isinstance(method, ast.FunctionDef) and method.name == "__init__"
        for call in ast.walk(method)
        if isinstance(call, ast.Call) and _is_io(called := ast.unparse(call.func))
    ]


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
        if (calls := io_in_constructors(path.read_text()))
    }
    assert found == {}


def test_io_in_a_constructor_is_found():
    source = "class A:\n def __init__(self):\n  self.s = socket.socket()\n  self.f = path.open()\n"
    assert io_in_constructors(source) == ["A: socket.socket", "A: path.open"]
    assert io_in_constructors(source.replace("__init__", "open")) == []
