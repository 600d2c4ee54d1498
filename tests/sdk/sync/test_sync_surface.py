"""The synchronous twins are those of the asynchronous classes: written from them, with all their members."""

from __future__ import annotations

import ast
import importlib
import inspect
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import sandbox_agent

SCRIPT = Path(__file__).parents[3] / "scripts" / "make-sync"
TABLES = runpy.run_path(str(SCRIPT))
LEFT_OUT: dict[str, set[str]] = TABLES["LEFT_OUT"]
TWINS: dict[str, str] = TABLES["TWINS"]


def test_what_is_checked_in_is_what_the_script_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], check=True, timeout=120)
    package = Path(str(sandbox_agent.__file__)).parent / "sync"
    written = {path.name: path.read_text() for path in tmp_path.glob("*.py")}
    assert len(written) == len(set(TWINS.values()))
    assert {name: (package / name).read_text() for name in written} == written


def asynchronous_classes() -> set[str]:
    """Names of classes that have something to wait for, of all modules but the synchronous ones."""
    package = Path(str(sandbox_agent.__file__)).parent
    return {
        node.name
        for path in [*package.glob("*.py"), *package.glob("persistence/*.py")]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(isinstance(each, ast.AsyncFunctionDef) for each in node.body)
    }


def test_whatever_has_something_to_wait_for_comes_out_as_its_twin() -> None:
    written, asynchronous = set(TWINS) | {"Store"}, asynchronous_classes()
    for path in (Path(str(sandbox_agent.__file__)).parent / "sync").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.returns is not None and not node.name.startswith("_"):
                told = {each.id for each in ast.walk(node.returns) if isinstance(each, ast.Name)}
                assert told & asynchronous <= written, f"{path.name}: {node.name} needs a twin"


@pytest.mark.parametrize("name", [*TWINS, "Store"])
def test_a_twin_has_every_public_member_with_the_same_parameters(name: str) -> None:
    module = TWINS.get(name, "store")
    ours = getattr(importlib.import_module(f"sandbox_agent.sync.{module}"), name)
    theirs = getattr(importlib.import_module(f"sandbox_agent.{module if name in TWINS else 'persistence.store'}"), name)
    public = {member for member in dir(theirs) if not member.startswith("_")} - LEFT_OUT.get(name, set())
    assert public <= set(dir(ours))
    for member in public:
        method = inspect.getattr_static(theirs, member)
        if isinstance(method, classmethod) or inspect.isfunction(method):
            told = inspect.signature(getattr(ours, member)).parameters.values()
            expected = inspect.signature(getattr(theirs, member)).parameters.values()
            assert [(each.name, each.kind, each.default) for each in told] == [
                (each.name, each.kind, each.default) for each in expected
            ], member
            assert not inspect.iscoroutinefunction(getattr(ours, member))
    assert hasattr(ours, "__next__") == hasattr(theirs, "__anext__")
