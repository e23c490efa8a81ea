"""Examples run, and what the documents show is what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if not path.name.startswith("test_"))
TESTS = sorted((ROOT / "examples").glob("test_*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    """Every example ends without an error, outside the repository."""
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", TESTS, ids=lambda p: p.name)
def test_example_of_tests_passes(path: Path, tmp_path: Path) -> None:
    """The example of a test file is one: pytest runs it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_notebook_names_its_mistake(tmp_path: Path) -> None:
    """The network of a notebook is reported with the factor that it forgets."""
    done = subprocess.run([sys.executable, str(ROOT / "examples" / "notebook_network.py")], capture_output=True, text=True, cwd=tmp_path,
                          timeout=300, check=False)
    assert "db1 is 50 times what it should be, everywhere: a division by 50 is missing" in done.stdout


def test_the_page_on_custom_layers_shows_what_is_printed(tmp_path: Path) -> None:
    """Every line that docs/custom-layers.md shows is one that its examples print."""
    page = (ROOT / "docs" / "custom-layers.md").read_text()
    shown = [line.rstrip() for block in re.findall(r"```text\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    printed: set[str] = set()
    for name in ("custom_autograd_function", "new_layer", "no_layer"):
        done = subprocess.run([sys.executable, str(ROOT / "examples" / f"{name}.py")], capture_output=True, text=True, cwd=tmp_path,
                              timeout=300, check=False)
        printed |= {line.rstrip() for line in done.stdout.splitlines()}
    assert [line for line in shown if line not in printed] == []


def test_readme_shows_the_example_and_what_it_prints(tmp_path: Path) -> None:
    """The README's code is examples/wrong_adapter.py, and the panel it shows is the one that the code prints."""
    readme = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)```", readme, re.DOTALL)
    assert (ROOT / "examples" / "wrong_adapter.py").read_text().endswith(code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert shown.strip() in done.stdout


def test_readme_is_short() -> None:
    """A newcomer reads at most 150 lines."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
