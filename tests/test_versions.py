"""Other versions of the frameworks: what tox installs for them, and where jax's known discrepancies begin and end.

No other version can be installed here; what each of them answered is kept in benchmarks/versions.json, and what the installed one
answers is asked again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import jax
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
RECORD = json.loads((ROOT / "benchmarks" / "versions.json").read_text())


@pytest.fixture(scope="module")
def versions() -> Iterator[ModuleType]:
    """Import benchmarks/versions.py as the script that it is, and forget it and what it imports from its folder."""
    before = set(sys.modules)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import versions

        yield versions
    finally:
        sys.path.pop(0)
        for name in {"versions", "document"} - before:
            sys.modules.pop(name, None)


def factors() -> list[str]:
    """Return the versions of jax that tox.ini has an environment for."""
    parser = ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini")
    (section,) = (name for name in parser.sections() if name.startswith("testenv:verify-jax{"))
    return section.partition("{")[2].rstrip("}").split(",")


@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_tox_installs_what_its_factor_names(framework: str, tmp_path: Path) -> None:
    """Each `verify-jaxX` installs jax X and one numpy, scipy and ml_dtypes, free of constraints.txt; verify-torch what TORCH says."""
    names = [f"verify-jax{factor}" for factor in factors()] if framework == "jax" else ["verify-torch"]
    done = subprocess.run([sys.executable, "-m", "tox", "config", "--workdir", tmp_path, "-e", ",".join(names), "-k", "deps", "set_env",
                           "commands"], cwd=ROOT, capture_output=True, text=True, check=True,
                          env={"PATH": os.environ["PATH"], "TORCH": "torch==2.4.1"})
    for name, part in zip(names, done.stdout.split("[testenv:")[1:], strict=True):
        assert part.startswith(f"{name}]")
        assert "PIP_CONSTRAINT" not in part
        assert f"commands = backproof verify --adapter {'jax:jit' if framework == 'jax' else 'torch'}" in part
        wanted = [Requirement(line.removeprefix("deps =")) for line in part.split("set_env")[0].splitlines()[1:] if line.strip(" deps=")]
        if framework == "jax":
            assert [need.name for need in wanted] == ["jax", "numpy", "scipy", "ml_dtypes"]
            assert str(wanted[0].specifier).startswith(f"=={name.removeprefix('verify-jax')}")
        else:
            assert [str(need) for need in wanted] == ["torch==2.4.1"]


def test_every_factor_was_measured() -> None:
    """The answers kept are of the versions that tox installs, and of the oldest and newest that the package takes."""
    measured = sorted(RECORD, key=Version)
    assert all(any(f"{version}.".startswith(f"{factor}.") for version in measured) for factor in factors())
    assert measured[0] == "0.4.30"
    assert measured[-1].startswith("0.10.")


def test_the_known_list_holds_for_every_version(versions: ModuleType) -> None:
    """Each discrepancy shows in the versions of its entry's range and in no other, by the answers kept."""
    assert versions.disagreements(RECORD) == []


def test_the_known_list_holds_for_the_installed_version(versions: ModuleType) -> None:
    """The installed jax is asked again: what it shows is what the known list says of it, and it answers as it did when it was measured."""
    given = {question.name: versions.answer(question) for question in versions.ASKED}
    assert versions.disagreements({jax.__version__: given}) == []
    if jax.__version__ in RECORD:
        verdicts = [{q.name: q.right(answers[q.name]) for q in versions.ASKED} for answers in (given, RECORD[jax.__version__])]
        assert verdicts[0] == verdicts[1]


def test_a_range_that_does_not_hold_is_named(versions: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry whose range begins too late or ends too early is told with version and range; so is one that is missing."""
    entries = {entry.id: entry for entry in versions.load_known()}
    late = [replace(entry, versions=">=0.7") if entry.id == "jax-elu-tail" else entry for entry in entries.values()]
    monkeypatch.setattr(versions, "load_known", lambda: tuple(late))
    assert versions.disagreements({"0.6.2": RECORD["0.6.2"]}) == ["jax 0.6.2: jax-elu-tail shows, and its range is >=0.7"]
    wide = [replace(entry, versions=">=0.4") if entry.id == "jax-gelu-tail" else entry for entry in entries.values()]
    monkeypatch.setattr(versions, "load_known", lambda: tuple(wide))
    assert versions.disagreements({"0.6.2": RECORD["0.6.2"]}) == ["jax 0.6.2: jax-gelu-tail does not show, and its range is >=0.4"]
    monkeypatch.setattr(versions, "load_known", lambda: tuple(entry for entry in entries.values() if entry.id != "jax-elu-tail"))
    assert versions.disagreements({"0.6.2": RECORD["0.6.2"]}) == ["jax-elu-tail: no such entry"]


def test_a_run_of_versions_is_told_by_its_first(versions: ModuleType) -> None:
    """Equal answers, NaN among them, make one run."""
    question = versions.Question("q", lambda: 0, 1.0, 0.0)
    record = {"0.4.30": {"q": float("nan")}, "0.4.31": {"q": float("nan")}, "0.6.0": {"q": 1.0}, "0.10.0": {"q": 1.0}}
    assert [version for version, _ in versions.spans(question, record)] == ["0.4.30", "0.6.0"]


def test_the_page_holds_the_answers(versions: ModuleType) -> None:
    """The tables of docs/findings.md are those that the answers make."""
    assert versions.tables(RECORD) in versions.PAGE.read_text()


@pytest.mark.parametrize(("given", "text"), [
    (1.0, "1"), (1.5, "1.5"), (2.0, "**2**"), (float("nan"), "**nan**"), ("ValueError: no", "**refused**"), ("-", "-"),
])
def test_a_wrong_answer_is_bold(versions: ModuleType, given: float | str, text: str) -> None:
    """What rounding does not explain is in bold, also a refusal; what a version has no function for is a dash."""
    assert versions.cell(versions.Question("q", lambda: 0, 1.0, 0.5), given) == text
