"""What docs/ci.md shows can be pasted: files that parse, commands and options that exist, and output that is printed."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from backproof.cli import cli
from backproof.compare.baseline import read_baseline
from backproof.compare.comparison import compare_reports
from backproof.compare.reading import read_report
from backproof.compare.rules import WEIGHTS, Line

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def _workflow() -> list[dict[str, Any]]:
    (text,) = _blocks("yaml")
    return yaml.safe_load(text)["jobs"]["backproof"]["steps"]


def _commands() -> list[str]:
    """Return every command line of ours on the page."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read_string(_blocks("ini")[0])
    lines = [step.get("run", "") for step in _workflow()] + [line for block in _blocks("sh") for line in block.splitlines()]
    lines.append(tox["testenv:gradients"]["commands"].replace("{posargs}", "").replace("{tox_root}{/}", ""))
    return [line for line in lines if line.startswith("backproof ")]


def test_the_commands_of_the_page_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a command with options that it has; only the files are not there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    (tmp_path / "backproof.toml").write_text("")
    assert len(_commands()) == 5
    for line in _commands():
        name, *arguments = shlex.split(line)[1:]
        command = cli.commands[name]
        with click.Context(command) as context:
            command.parse_args(context, arguments)


def test_the_options_that_the_text_names_exist() -> None:
    """Each `--option` of the page belongs to a command."""
    known = {option for command in cli.commands.values() for parameter in command.params for option in parameter.opts}
    named = {name.strip("`") for name in re.findall(r"`?--[a-z]+", PAGE)} - {"--index"}
    assert named <= known
    assert {"--baseline", "--junit", "--keep", "--quiet", "--strict", "--check"} <= named


def test_the_workflow_keeps_what_the_run_writes() -> None:
    """Report and JUnit file are uploaded, whatever the run found."""
    *_, run, upload = _workflow()
    assert upload["if"] == "always()"
    assert upload["with"]["path"].split() == ["reports/", "junit.xml"]
    assert "--junit junit.xml" in run["run"]


def test_the_tox_environment_passes_what_github_sets() -> None:
    """Without these variables a run under tox would not annotate; ours passes them too."""
    wanted = {"CI", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"}
    for text, name in ((_blocks("ini")[0], "testenv:gradients"), ((ROOT / "tox.ini").read_text(), "testenv:verify")):
        tox = configparser.ConfigParser(interpolation=None)
        tox.read_string(text)
        assert set(tox[name]["pass_env"].split()) >= wanted


def test_the_baseline_of_the_page_is_one(tmp_path: Path) -> None:
    """It can be read."""
    (text,) = _blocks("toml")
    (tmp_path / "backproof.toml").write_text(text)
    assert read_baseline(tmp_path / "backproof.toml") == tomllib.loads(text)


def test_the_comparison_of_the_page_is_what_is_printed(tmp_path: Path) -> None:
    """Every line of it."""
    done = subprocess.run([sys.executable, str(ROOT / "examples" / "compare_runs.py")], capture_output=True, text=True, cwd=tmp_path,
                          timeout=300, check=True)
    (shown,) = _blocks("text")
    assert [line.rstrip() for line in done.stdout.strip().splitlines()] == shown.strip().splitlines()


def test_the_json_of_a_comparison_is_documented() -> None:
    """Every field, and every weight of a line."""
    report = read_report(ROOT / "reports" / "sample")
    table = PAGE.partition("## diff as JSON")[2]
    fields = {*compare_reports(report, report).describe(), *Line("note", "x", "x", "x", "x").describe(), *WEIGHTS}
    assert not [name for name in fields if f"`{name}`" not in table]
    json.dumps(compare_reports(report, report).describe())


def test_the_calls_of_the_page_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A run, its baseline, JUnit file and the older reports' end, from Python."""
    (source,) = _blocks("py")
    monkeypatch.chdir(tmp_path)
    for _ in range(4):
        exec(source.replace("cases=400", 'cases=4, layers=["Linear"]'), {})  # noqa: S102  (our own page)
        assert capsys.readouterr().out == "NOT WORSE: no difference\n"
    assert len([*(tmp_path / "reports").iterdir()]) == 3
    assert "backproof.torch.float64" in (tmp_path / "junit.xml").read_text()
