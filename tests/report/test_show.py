"""`backproof show`: the newest report below a folder, in a browser where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from backproof.cli import main; main()", "show"]


def show(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command where no browser is to be found but the one that is given."""
    plain = {name: value for name, value in os.environ.items() if name not in {"BROWSER", "DISPLAY", "WAYLAND_DISPLAY"}}
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=cwd,
                          env={**plain, "PATH": "", **environment})


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Three reports, the second of them written last, and an unfinished one that is newer still."""
    for at, name in enumerate(("2026-01-03", "deeper/2026-01-01", "2026-01-02", "unfinished")):
        folder = tmp_path / "reports" / name
        folder.mkdir(parents=True)
        files = ["report.html"] if name == "unfinished" else ["report.html", "report.json"]
        for file in files:
            (folder / file).write_text("")
            os.utime(folder / file, (2000 if at == 1 else at, 2000 if at == 1 else at))
    return tmp_path / "reports"


def test_the_newest_report_is_opened(reports: Path, tmp_path: Path) -> None:
    """The one written last is opened by the user's browser, at its file address; its path is printed."""
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f"#!{sys.executable}\nimport sys\nopen({str(opened)!r}, 'w').write(sys.argv[1])\n")
    browser.chmod(0o755)
    done = show("reports", cwd=tmp_path, BROWSER=f"{browser} %s")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "reports/deeper/2026-01-01/report.html\n"
    assert opened.read_text() == (reports / "deeper" / "2026-01-01" / "report.html").as_uri()


@pytest.mark.parametrize("arguments", [(), ("reports",), ("reports/deeper/2026-01-01",), ("reports/deeper/2026-01-01/report.html",)])
def test_without_a_browser_the_path_is_said(arguments: tuple[str, ...], reports: Path, tmp_path: Path) -> None:
    """Where no browser can be opened the path is printed all the same, and that is no error; a report itself may be named too."""
    done = show(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "reports/deeper/2026-01-01/report.html\n"
    assert done.stderr == "no browser to open it with: open the file by hand\n"
    assert show(*arguments, "--print", cwd=tmp_path).stderr == ""


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("nowhere", "backproof: no such folder: got nowhere. Do: backproof verify, which writes one below reports"),
        ("empty", "backproof: no report.html in empty or below: there is no report. Do: backproof verify --reports empty"),
        ("old", "backproof: no report.html in old or below: old/report.json was written without one. Do: backproof verify --reports old"),
        ("old/report.json", "backproof: not a report: got old/report.json, expected a folder or a report.html. Do: backproof show reports"),
    ],
)
def test_no_report_is_one_line_and_exit_2(argument: str, said: str, tmp_path: Path) -> None:
    """What is wrong and what to do, in one line."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_text("{}")
    done = show(argument, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"{said}\n"
    assert done.stdout == ""
