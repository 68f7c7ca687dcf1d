"""The shape of the packages: no circle of imports, short files and functions, and a short way from picture to sound.

Imports inside functions and for type checkers count. ``audioldm/__init__.py`` only lists the public names.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("audioldm", "translator", "prior_steps")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}


def imported(module: str) -> set[str]:
    """The modules of ours that ``module`` imports, wherever in its file; a package stands for its __init__.py."""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    if module == "audioldm":
        return found
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if not isinstance(node, ast.ImportFrom):
            continue
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *(node.module or "").split(".")]).strip(".")
        found |= {name if (name := f"{base}.{alias.name}") in FILES else base for alias in node.names}
    return found & FILES.keys() - {module}


def test_no_files_import_each_other_in_circles() -> None:
    try:
        TopologicalSorter({module: imported(module) for module in FILES}).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("module", FILES)
def test_files_have_at_most_300_lines_and_functions_60(module: str) -> None:
    text = FILES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [node.name for node in functions if node.end_lineno - node.lineno >= 60] == []


def test_at_most_12_files_lie_flat_in_audioldm() -> None:
    assert len(list((ROOT / "audioldm").glob("*.py"))) <= 12


def test_a_picture_passes_through_at_most_18_files() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "path.py"], capture_output=True, text=True, timeout=300, check=True
    )
    assert int(run.stdout.splitlines()[-1].split(" files, ")[0]) <= 18, run.stdout
