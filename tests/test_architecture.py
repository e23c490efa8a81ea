"""docs/architecture.md names what is there, and the tests of the harness lie where its rooms do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HARNESS, TESTS = ROOT / "harness", ROOT / "tests"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PLACE = re.compile(r"`([a-z_/]+\.py):([A-Za-z_.]+)`")
WALKS = {title: body for title, _, body in (part.partition("\n") for part in PAGE.split("\n## The walk of ")[1:])}

SERVES: dict[str, str] = {
    "check/test_check_command.py": "check/checking check/candidate",
    "check/test_checking.py": "check/candidate check/checker check/conditions check/isolation check/simplest",
    "check/test_diagnoses.py": "check/checking",
    "check/test_directional.py": "check/checker judge/directional",
    "compare/test_baseline.py": "compare/outcome",
    "compare/test_comparison.py": "compare/formats compare/rules compare/summary",
    "draw/test_strategies.py": "draw/architectures draw/batches draw/families draw/family draw/structures",
    "gradients/test_checking.py": "gradients/derivatives gradients/explanation gradients/model gradients/parameter gradients/purity "
                                  "gradients/record gradients/stand_in gradients/wellformed",
    "judge/test_certify.py": "judge/certificate judge/comparing judge/end_to_end judge/neighbourhood judge/rules judge/subgradients "
                             "judge/wellformed",
    "judge/test_classify.py": "judge/judgement",
    "judge/test_diagnosis.py": "judge/derivation judge/factors",
    "judge/test_directional_parts.py": "draw/probe",
    "judge/test_known.py": "judge/verdicts",
    "proof/test_proving.py": "proof/contract proof/directions proof/kinds proof/methods proof/properties proof/setting",
    "report/test_disk.py": "report/folders report/repro report/templating report/tensors",
    "report/test_page_parts.py": "report/excess",
    "report/test_reading.py": "compare/reading verify/replay",
    "report/test_schema.py": "report/finding",
    "truth/test_own_forward.py": "truth/lifted truth/measurement truth/pairing check/stand_in",
    "verify/test_campaign.py": "verify/executor verify/job verify/store",
    "verify/test_run.py": "verify/examining verify/outcome report/environment report/ledger report/report report/results",
}
"""Test modules that test what modules of other names do, and which."""

SERVED = {f"{module}.py" for modules in SERVES.values() for module in modules.split()}


def names_in(source: str) -> set[str]:
    """Return the functions and classes that a module defines, and those of a class as `Class.name`."""
    tree, kinds = ast.parse(source), (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    top = [node for node in tree.body if isinstance(node, kinds)]
    inside = {f"{node.name}.{part.name}" for node in top if isinstance(node, ast.ClassDef) for part in node.body if isinstance(part, kinds)}
    return {node.name for node in top} | inside


def missing(page: str) -> list[str]:
    """Return the places that a page names, as `file.py:function` or `file.py:Class.method`, and that are not there."""
    return [f"{file}:{name}" for file, name in PLACE.findall(page)
            if not (ROOT / file).is_file() or name not in names_in((ROOT / file).read_text(encoding="utf-8"))]


def test_every_place_on_the_page_is_there() -> None:
    """Each `file.py:name` of docs/architecture.md is a function, class or method of that file."""
    assert len(PLACE.findall(PAGE)) > 50
    assert missing(PAGE) == []


@pytest.mark.parametrize("place", ["harness/verify/run.py:verfy", "harness/verify/runs.py:verify", "harness/verify/run.py:Run.walk"])
def test_a_place_that_is_not_there_is_seen(place: str) -> None:
    """A wrong name, file or method is reported."""
    assert missing(f"1. `{place}` does it, after `harness/verify/run.py:Run.parts`.") == [place]


def test_the_three_walks_are_on_the_page() -> None:
    """There is one walk for each product, it begins at its public function, and every step names a place."""
    assert list(WALKS) == ["`verify`", "`check`", "`check_gradients`"]
    for title, walk in WALKS.items():
        steps = re.split(r"^\d+\. ", walk, flags=re.MULTILINE)[1:]
        assert all(PLACE.search(step) for step in steps), title
        first = PLACE.search(steps[0])
        assert first is not None
        assert first[2] == title.strip("`")


def modules() -> set[str]:
    """Return the modules of the rooms, as judge/certify.py, and the packages in a room that hold one thing, as report/page.py."""
    found = {path.relative_to(HARNESS).as_posix() for path in HARNESS.glob("*/*.py") if path.name != "__init__.py"}
    found |= {f"{path.parent.relative_to(HARNESS).as_posix()}.py" for path in HARNESS.glob("*/*/__init__.py")}
    return found | {path.name for path in HARNESS.glob("*.py") if path.name != "__init__.py"}


def test_of(module: str) -> str:
    folder, _, name = module.rpartition("/")
    return f"{folder}/test_{name}".lstrip("/")


test_of.__test__ = False  # type: ignore[attr-defined]


def test_every_module_has_its_tests() -> None:
    """A module has a test module of its name in the folder of its room, or the table says which tests serve it."""
    without = {module for module in modules() if not (TESTS / test_of(module)).is_file()}
    assert sorted(without - SERVED) == [], "add tests, or say in SERVES which tests serve it"
    assert sorted(SERVED - modules()) == [], "no such module"
    assert sorted(test for test in SERVES if not (TESTS / test).is_file()) == [], "no such tests"


def test_every_test_module_belongs_to_something() -> None:
    """In the folder of a room a test module bears the name of a module, or begins with one, or is in the table."""
    rooms = {path.parent.name for path in HARNESS.glob("*/__init__.py")}
    found = {path.relative_to(TESTS).as_posix() for room in rooms for path in (TESTS / room).glob("test_*.py")}
    names = tuple(test_of(module).removesuffix(".py") for module in modules())
    assert sorted(test for test in found - SERVES.keys() if not test.startswith(names)) == []
