"""Imports between packages go downwards only, and importing a package that needs no torch loads none."""

from __future__ import annotations

import ast
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import acestep_cli
from support.command import finish

SOURCE = Path(acestep_cli.__file__).parent
#: The highest layer first. A module may import from its own package and from every layer below it, never from above or
#: from another package of its own layer.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("albums",),
    ("render",),
    ("pipeline", "training"),
    ("take",),
    ("engine",),
    ("machine",),
    ("song",),
    ("models",),
    ("audio",),
    ("cache",),
    ("disk",),
    ("errors", "progress", "solvers"),
    ("__init__",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
#: The packages and modules at the top that may import torch.
WITH_TORCH = {"engine", "pipeline", "training"}
MODULES = sorted(SOURCE.rglob("*.py"))


def layer_of(module: str) -> str:
    """Return the first part of a dotted module name below `acestep_cli`."""
    return module.split(".")[0]


def dotted(path: Path) -> str:
    """Return the dotted name of a source file below `acestep_cli`."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts if parts[-1] != "__init__" or len(parts) == 1 else parts[:-1])


ALL_MODULES = {dotted(path) for path in MODULES}


def imported(path: Path, *, also_types: bool = True) -> Iterator[str]:
    """Yield the modules that a file imports: at its top, inside functions and, with `also_types`, under
    TYPE_CHECKING.
    """
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    if not also_types:
        types = [node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        skipped = {inner for node in types for inner in ast.walk(node)}
        nodes = [node for node in nodes if node not in skipped]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}:{node.lineno}: a relative import; spell it out"
            if (node.module or "").split(".")[0] == "acestep_cli":
                base = (node.module or "").removeprefix("acestep_cli").removeprefix(".")
                for name in node.names:
                    whole = f"{base}.{name.name}".removeprefix(".")
                    yield whole if whole in ALL_MODULES else base or "__init__"
        elif isinstance(node, ast.Import):
            yield from (name.name[len("acestep_cli.") :] for name in node.names if name.name.startswith("acestep_cli."))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_downwards(path: Path) -> None:
    here = layer_of(dotted(path))
    assert here in RANK, f"add {here} to LAYERS"
    for module in imported(path):
        there = layer_of(module)
        assert here == there or RANK[there] > RANK[here], f"{here} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_torch_is_loaded_by_load_libraries(path: Path) -> None:
    """Whatever a command imports first of the modules with torch: it chooses how threads wait, and works where the
    current folder was deleted.
    """
    for module in imported(path, also_types=False) if layer_of(dotted(path)) not in WITH_TORCH else ():
        if layer_of(module) in WITH_TORCH:
            text = (SOURCE / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
            before, torch, _ = text.partition("\nimport torch\n")
            assert not torch or "\nimport acestep_cli.engine.load_libraries " in before, module


def test_no_package_has_an_import_circle() -> None:
    edges = {dotted(path): {module for module in imported(path) if module in ALL_MODULES} for path in MODULES}
    done: set[str] = set()

    def visit(module: str, chain: tuple[str, ...]) -> None:
        assert module not in chain, " -> ".join((*chain[chain.index(module) :], module))
        if module not in done:
            for other in sorted(edges[module] - {module}):
                visit(other, (*chain, module))
            done.add(module)

    for module in sorted(edges):
        visit(module, ())


def test_the_top_has_at_most_nine_packages_and_nine_files() -> None:
    packages = [path for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert len(packages) <= 9
    assert len(list(SOURCE.glob("*.py"))) <= 9


def test_packages_have_empty_init_files() -> None:
    assert not [path for path in SOURCE.rglob("*/__init__.py") if path.parent != SOURCE and path.stat().st_size]


@pytest.mark.parametrize(
    "package", [name for layer in LAYERS for name in layer if name not in {*WITH_TORCH, "__main__"}]
)
def test_importing_a_package_loads_no_torch(package: str) -> None:
    """Importing every module of a package but engine, pipeline and training loads no torch."""
    folder = SOURCE / package
    names = (
        [package]
        if not folder.is_dir()
        else [name.name for name in pkgutil.walk_packages([str(folder)], f"acestep_cli.{package}.")]
    )
    names = [
        "acestep_cli" if name == "__init__" else name if name.startswith("acestep_cli") else f"acestep_cli.{name}"
        for name in names
    ]
    code = f"import sys, {', '.join(names)}\nassert 'torch' not in sys.modules, 'torch was imported'"
    done = finish([sys.executable, "-c", code], text=True)
    assert done.returncode == 0, done.stderr
