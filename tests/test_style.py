"""What is imported is declared, and no package registry is named."""

from __future__ import annotations

import ast
import re
import sys
import tomllib

from support.places import ROOT

PROVIDED_BY = {"yaml": "PyYAML", "PIL": "pillow", "modelscope_hub": "modelscope-hub"}
#: Extras whose libraries the program uses where they are, and does without where they are not.
USED_WHERE_INSTALLED = ("analysis", "eight-bit", "modelscope", "ray")

#: pydub imports it from Python 3.13 on, and does not declare it.
IMPORTED_BY_OTHERS = {"audioop-lts"}


def test_what_is_imported_is_declared() -> None:
    """What comes with another package today may not tomorrow."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for name in USED_WHERE_INSTALLED for line in project["optional-dependencies"][name]]
    declared = {re.split(r"[^\w-]", line)[0] for line in [*project["dependencies"], *extras]}
    imported = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    foreign = imported - sys.stdlib_module_names - {"acestep_cli", "_typeshed"}  # the latter is for mypy alone
    assert {PROVIDED_BY.get(name, name) for name in foreign} == declared - IMPORTED_BY_OTHERS


def test_no_registry_is_named() -> None:
    """Where packages come from is for the machine that installs them to say."""
    for name in ("README.md", "Makefile", "pyproject.toml", "constraints.txt"):
        assert not re.search(r"download\.pytorch|pypi\.org|/simple", (ROOT / name).read_text(encoding="utf-8"))
