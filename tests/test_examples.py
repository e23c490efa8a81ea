"""Examples run, and what the documents show is what they print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    """Every example ends without an error, outside the repository."""
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


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
