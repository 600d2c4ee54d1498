"""The examples of docs/supervisor.md are programs and tests; here they are run, as they stand on the page."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "supervisor.md"


@dataclass(frozen=True, slots=True)
class Example:
    """A block of Python, and what the page says it prints."""

    line: int
    text: str
    output: str


def examples() -> list[Example]:
    page = PAGE.read_text()
    blocks = re.finditer(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", page, re.DOTALL | re.MULTILINE)
    return [Example(page.count("\n", 0, block.start()) + 1, block[1], block[2] or "") for block in blocks]


def run(*argv: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *argv], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def code_lines(example: Example) -> int:
    return sum(bool(line.strip()) for line in example.text.splitlines())


@pytest.mark.parametrize("example", [pytest.param(example, id=f"line {example.line}") for example in examples()])
def test_every_example_runs_and_prints_what_the_page_says(example: Example, tmp_path: Path) -> None:
    file = tmp_path / "test_example.py"
    file.write_text(example.text)
    if "def test_" in example.text:
        settings = ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-p", "no:cacheprovider")
        assert "2 passed" in run("-m", "pytest", *settings, str(file))
    else:
        assert run(str(file)) == example.output


def test_the_program_is_as_short_as_a_model_should_be() -> None:
    program, test, *others = examples()
    assert code_lines(program) <= 30
    assert code_lines(test) <= 20
    assert others
