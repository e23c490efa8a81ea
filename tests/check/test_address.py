"""What a user's module raises when it is imported is the user's: a sentence with their file and line, whatever its name or folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from backproof.check.address import imported
from backproof.reference.usage import UsageError

COMMAND = [sys.executable, "-c", "from backproof.cli import main; main()", "check"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder whose name is that of one of ours."""
    folder = tmp_path / "harness"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.mark.parametrize(("text", "said"), [
    ("x = 1\ny = 1 + 'a'\n", r"importing backproof_raises raises TypeError: unsupported operand .* \(.*backproof_raises\.py, line 2\)"),
    ("def f(:\n", r"importing backproof_raises raises SyntaxError: .* \(.*backproof_raises\.py, line 1\)"),
    ("import math\n\n\ndef f():\n    return math.sqrt(-1)\n\n\nf()\n", r"raises ValueError: .* \(.*backproof_raises\.py, line 5\)"),
    ("import no_such_package\n", r"raises ModuleNotFoundError: .*no_such_package.* \(.*backproof_raises\.py, line 1\)"),
])
def test_what_is_raised_at_import_is_said_with_its_place(text: str, said: str, here: Path) -> None:
    """The error, its message, and the last line of the user's module that was reached."""
    (here / "backproof_raises.py").write_text(text)
    sys.modules.pop("backproof_raises", None)
    with pytest.raises(UsageError, match=said):
        imported("backproof_raises:f")


@pytest.mark.parametrize(("name", "said"), [
    ("nowhere_at_all:f", "no module 'nowhere_at_all' here or among the installed ones"),
    ("nowhere", "expected MODULE:NAME"), ("math:no_such_name", "no attribute 'no_such_name'"),
])
def test_what_is_not_there_is_said(name: str, said: str) -> None:
    """A module, a name, or a text that is no address."""
    with pytest.raises(UsageError, match=said):
        imported(name)


def test_wrong_usage_exits_2_whatever_the_folder_is_called(here: Path) -> None:
    """A TypeError of the user's module is no bug of ours, and no traceback."""
    (here / "backproof_mine.py").write_text("raise TypeError('mine')\n")
    done = subprocess.run([*COMMAND, "backproof_mine:f", "--like", "Identity()", "--framework", "numpy"], capture_output=True, text=True,
                          check=False, cwd=here)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "importing backproof_mine raises TypeError: mine (" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_candidate_raises_is_placed_in_its_module(here: Path) -> None:
    """A module whose name begins like ours is the user's."""
    (here / "backproof_theirs.py").write_text("def f(x):\n    raise KeyError('gone')\n")
    done = subprocess.run([*COMMAND, "backproof_theirs:f", "--like", "Identity()", "--framework", "numpy", "--cases", "2"],
                          capture_output=True, text=True, check=False, cwd=here)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the candidate raised KeyError: 'gone' (backproof_theirs.py, line 2)" in " ".join(done.stdout.split())
