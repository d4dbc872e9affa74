"""No module imports itself by way of others: neither at run time, nor only for types."""

import ast
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
PACKAGES: Final = ("netemu", "hostagent")


def modules() -> dict[str, Path]:
    """The path of each module, by its dotted name."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {_name(path): path for path in paths}


def imports(name: str, path: Path, known: set[str]) -> set[str]:
    """The known modules that this one imports, also under TYPE_CHECKING and inside functions."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                member = f"{source}.{alias.name}"
                found.add(member if member in known else source)
    return (found & known) - {name}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The names along one circle of the graph, or nothing if it has none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next(filter(None, (visit(name, []) for name in sorted(graph))), [])


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_module_imports_itself_by_way_of_others():
    known = modules()
    graph = {name: imports(name, path, set(known)) for name, path in known.items()}

    assert len(graph) > 200
    assert " -> ".join(circle(graph)) == ""


def test_a_circle_under_type_checking_is_found(tmp_path):
    (tmp_path / "a.py").write_text("from . import b\n")
    (tmp_path / "b.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.a import thing\n"
    )
    known = {"pkg.a": tmp_path / "a.py", "pkg.b": tmp_path / "b.py"}
    graph = {name: imports(name, path, set(known)) for name, path in known.items()}

    assert circle(graph) == ["pkg.a", "pkg.b", "pkg.a"]
