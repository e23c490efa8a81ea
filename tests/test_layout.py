"""The layout keeps its promises: who imports whom, no literal tolerance, a cheap import, no layer left out of a table."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import backproof
import pytest
from backproof.draw.strategies import FAMILIES, heads
from backproof.reference import network
from backproof.reference.graph import Container
from backproof.reference.layer import REGISTRY, Layer
from hypothesis import find, settings

assert network  # enrols every layer and head

ROOT = Path(__file__).parents[1]
FOLDERS = ("reference", "adapters", "harness", "tests", "benchmarks", "examples", "docs")
TOLERANCE = re.compile("|".join(("all" + "close", "is" + "close", "r" + "tol", "a" + "tol")))  # so that this file holds none
MAY_BOUND = (ROOT / "reference" / "rounding", ROOT / "benchmarks")
THIRD_PARTIES = frozenset({"numpy", "scipy", "ml_dtypes"})
HEAVY = ("torch", "jax", "flint", "hypothesis", "rich", "click", "sklearn", "jinja2", "pydantic", "tomlkit", "junitparser")
FRAMEWORKS = ("torch", "jax")
LEVELS = (
    ("wording", "process"), ("truth",), ("proof",), ("judge",), ("draw",), ("report",), ("check", "gradients", "verify"), ("compare",),
    ("cli", "pytest_plugin"),
)
"""The rooms of the harness from the ground up. A room imports from those below it; rooms of one level know nothing of each other."""

HARNESS = ROOT / "harness"
TOP = "__init__"  # the public names, which no room imports
LEVEL = {TOP: len(LEVELS)} | {room: n for n, level in enumerate(LEVELS) for room in level}
OWN = {name: cls for name, cls in REGISTRY.items() if cls.__module__.startswith("backproof.reference.")}


@dataclass(frozen=True)
class Import:
    """A module that a file imports, as an absolute name, and whether only a function's body does so."""

    module: str
    lazy: bool


def imported(source: str, package: str) -> Iterator[Import]:
    """Yield every import of a module of `package`, wherever it stands."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            base = ".".join(above[: len(above) - node.level + 1]) if node.level else ""
            yield from (Import(".".join(filter(None, (base, node.module, alias.name))), lazy) for alias in node.names)
        inside = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    return walk(ast.parse(source), lazy=False)


def misplaced_in_reference(name: str, source: str) -> list[str]:
    """Return what a file of `reference` imports and may not."""
    found = []
    for item in imported(source, "backproof.reference"):
        top = item.module.split(".")[0]
        allowed = (
            (top in sys.stdlib_module_names or top in THIRD_PARTIES or item.module.startswith("backproof.reference."))
            or (top == "sklearn" and item.lazy and name == "values.py")
        )
        if not allowed:
            found.append(item.module)
    return found


def misplaced_in_adapters(source: str) -> list[str]:
    """Return what a file of `adapters` imports from the harness."""
    allowed = ("backproof.reference.", "backproof.adapters.")
    return [item.module for item in imported(source, "backproof.adapters")
            if item.module.split(".")[0] == "backproof" and not item.module.startswith(allowed)]


def harness_file(module: str) -> str:
    """Return the file of the harness, such as judge/certify.py, that holds a module or a name in it; empty for another package's."""
    parts = module.split(".")
    if parts[0] != "backproof" or parts[1:2] in (["reference"], ["adapters"]):
        return ""
    for length in range(len(parts), 1, -1):
        place = "/".join(parts[1:length])
        for file in (f"{place}.py", f"{place}/__init__.py"):
            if (HARNESS / file).is_file():
                return file
    return f"{TOP}.py"


def room_of(file: str) -> str:
    return file.partition("/")[0].removesuffix(".py")


def misplaced_in_harness(file: str, source: str) -> list[str]:
    """Return the imports of a file of the harness that go against the order of the rooms, or are relative."""
    found = [f"harness/{file}: a relative import in line {node.lineno}" for node in ast.walk(ast.parse(source))
             if isinstance(node, ast.ImportFrom) and node.level]
    room = room_of(file)
    if room not in LEVEL:
        return [*found, f"harness/{file}: the table of rooms does not list {room}"]
    package = ".".join(("backproof", *Path(file).parent.parts))
    others = filter(None, (harness_file(item.module) for item in imported(source, package)))
    return found + [f"harness/{file} imports harness/{other}" for other in others
                    if room_of(other) != room and LEVEL.get(room_of(other), len(LEVELS)) >= LEVEL[room]]


def circle(files: dict[str, str]) -> list[str]:
    """Return the files of a circle of imports, lazy ones included, given the sources of the harness; nothing where there is none."""
    graph = {file: {other for item in imported(source, "backproof") if (other := harness_file(item.module)) not in {"", file}}
             for file, source in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def harness_sources() -> dict[str, str]:
    return {path.relative_to(HARNESS).as_posix(): path.read_text() for path in sources("harness")}


def sources(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if "__pycache__" not in path.parts]


@pytest.mark.parametrize("path", sources("reference"), ids=lambda path: path.name)
def test_reference_imports_no_framework_and_neither_of_the_others(path: Path) -> None:
    """A file of `reference` imports the standard library, numpy, scipy, ml_dtypes and its own folder; scikit-learn lazily."""
    assert misplaced_in_reference(path.name, path.read_text()) == []


@pytest.mark.parametrize("path", sources("adapters"), ids=lambda path: path.name)
def test_adapters_import_nothing_of_the_harness(path: Path) -> None:
    """A file of `adapters` imports of backproof only `reference` and `adapters`."""
    assert misplaced_in_adapters(path.read_text()) == []


def test_the_rooms_of_the_harness_import_only_from_below() -> None:
    """Every import of the harness, also of a function or for types alone, goes to a room below, and none is relative."""
    assert [wrong for file, source in harness_sources().items() for wrong in misplaced_in_harness(file, source)] == []


def test_every_room_is_there_and_none_is_unlisted() -> None:
    """The table of rooms names exactly the folders and modules of the harness."""
    assert {room_of(file) for file in harness_sources()} == LEVEL.keys()


def test_no_modules_of_the_harness_import_each_other() -> None:
    """There is no circle of imports, in a room or among them."""
    assert circle({file: source for file, source in harness_sources().items() if room_of(file) != TOP}) == []


@pytest.mark.parametrize(("file", "line", "said"), [
    ("truth/exact.py", "from backproof.check.candidate import Candidate", "harness/truth/exact.py imports harness/check/candidate.py"),
    ("judge/rules.py", "def f():\n    from backproof.report import finding", "harness/judge/rules.py imports harness/report/finding.py"),
    ("draw/probe.py", "if TYPE_CHECKING:\n    import backproof.report.report", "harness/draw/probe.py imports harness/report/report.py"),
    ("check/checker.py", "from backproof.gradients import model", "harness/check/checker.py imports harness/gradients/model.py"),
    ("verify/run.py", "from backproof.check.checking import check", "harness/verify/run.py imports harness/check/checking.py"),
    ("report/page/heat.py", "from backproof import verify", "harness/report/page/heat.py imports harness/verify/__init__.py"),
    ("report/disk.py", "import backproof as bp", "harness/report/disk.py imports harness/__init__.py"),
    ("wording.py", "from backproof.process import Worker", "harness/wording.py imports harness/process.py"),
    ("report/disk.py", "from .results import Results", "harness/report/disk.py: a relative import in line 1"),
    ("report/page/heat.py", "from ..excess import Map", "harness/report/page/heat.py: a relative import in line 1"),
    ("audit/call.py", "", "harness/audit/call.py: the table of rooms does not list audit"),
])
def test_the_check_of_the_rooms_objects(file: str, line: str, said: str) -> None:
    """An import against the order, a relative one and an unlisted room are seen; what is said names the files."""
    assert misplaced_in_harness(file, line) == [said]


def test_imports_from_below_pass() -> None:
    """Imports from below, from the same room, and from the two packages underneath are no fault."""
    source = "from backproof.judge import rules\nfrom backproof.report import reading\nimport backproof.adapters, backproof.reference.case"
    assert misplaced_in_harness("report/disk.py", source) == []


def test_the_check_of_circles_objects() -> None:
    """Two modules that import each other are named, also where one does so in a function."""
    two = {"report/disk.py": "from backproof.report.show import newest", "report/show.py": "def f():\n    import backproof.report.disk"}
    assert set(circle(two)) == {"report/disk.py", "report/show.py"}
    assert circle({**two, "report/show.py": ""}) == []


@pytest.mark.parametrize("room", [room for room in LEVEL if (HARNESS / room / "__init__.py").is_file()])
def test_a_room_says_what_it_may_use(room: str) -> None:
    """The docstring of a room says what it is for, and names the rooms that the order allows it."""
    said = ast.get_docstring(ast.parse((HARNESS / room / "__init__.py").read_text())) or ""
    may = re.search(r"^May use: (.+?)\.$", said, re.MULTILINE | re.DOTALL)
    assert may is not None, f"harness/{room}/__init__.py: no line `May use: ...`"
    below = [name for level in LEVELS[: LEVEL[room]] for name in level]
    assert re.split(r",\s+", may[1]) == ["reference", "adapters", *below]


def test_the_drawing_of_the_rooms_is_the_table() -> None:
    """docs/architecture.md draws the levels of the table from the top down."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    (drawing,) = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    drawn = [level for line in drawing.splitlines() if (level := set(re.findall(r"[a-z_]+(?=/|\.py)", line)))]
    assert drawn == [set(level) for level in (*reversed(LEVELS), ("reference", "adapters"))]


@pytest.mark.parametrize("line", [
    "import torch", "from jax import numpy", "from backproof.adapters import load", "from backproof import certify",
    "from ..adapters import load", "from .. import certify", "import sklearn", "def f():\n    import torch",
    "def f():\n    from sklearn import svm", "import backproof.verify",
])
def test_the_reference_check_objects(line: str) -> None:
    """Each forbidden import in a file of `reference` is seen, at the top or inside a function."""
    assert misplaced_in_reference("linear.py", line) != []


@pytest.mark.parametrize("line", ["from backproof.certify import judge", "from ..verify import verify", "import backproof.plant",
                                  "from .. import report", "def f():\n    from backproof import finding"])
def test_the_adapter_check_objects(line: str) -> None:
    """Each import of the harness in a file of `adapters` is seen."""
    assert misplaced_in_adapters(line) != []


def test_scikit_learn_is_allowed_in_one_function_only() -> None:
    """Scikit-learn passes inside a function of values.py, and fails at its top."""
    assert misplaced_in_reference("values.py", "def f():\n    from sklearn import datasets") == []
    assert misplaced_in_reference("values.py", "from sklearn import datasets") == ["sklearn.datasets"]


def test_no_file_holds_a_literal_tolerance() -> None:
    """The words of relative and absolute tolerances occur in no Python file but the rounding rules and the benchmarks."""
    paths = [path for folder in FOLDERS for path in sources(folder) if not any(path.is_relative_to(own) for own in MAY_BOUND)]
    assert {path.relative_to(ROOT).parts[0] for path in paths} >= {"reference", "adapters", "harness", "tests"}
    found = [f"{path.relative_to(ROOT)}:{number}: {line.strip()}" for path in paths
             for number, line in enumerate(path.read_text().splitlines(), 1) if TOLERANCE.search(line)]
    assert found == []


def in_subprocess(code: str) -> str:
    """Run a program in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_backproof_imports_nothing_heavy() -> None:
    """`import backproof` brings in no framework, no Hypothesis, no terminal or template library, no scikit-learn."""
    loaded = in_subprocess("import sys, backproof; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert "backproof" in loaded
    assert sorted(set(HEAVY).intersection(loaded)) == []


def test_importing_backproof_is_cheap() -> None:
    """`import backproof` takes less than 0.3 s beyond NumPy's own import, in the best of five runs."""
    code = "import time, numpy; start = time.perf_counter(); import backproof; print(time.perf_counter() - start)"
    assert min(float(in_subprocess(code)) for _ in range(5)) < 0.3


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_layer_and_head_has_a_lowering(framework: str) -> None:
    """The tables of an adapter hold exactly the registered layers and heads."""
    adapter = import_module(f"backproof.adapters.{framework}")
    layers = {name for name, cls in OWN.items() if issubclass(cls, Layer)}
    containers = {name for name, cls in OWN.items() if issubclass(cls, Container)}  # a graph unrolls them
    assert containers
    assert {cls.__name__ for cls in adapter.LOWERINGS} == layers - containers
    assert {cls.__name__ for cls in adapter.HEADS} == OWN.keys() - layers


def test_every_layer_has_a_strategy() -> None:
    """The strategies know exactly the registered layers, but for those that only stand inside others."""
    inside = {"Sequential", "Parallel", "Fork"}
    assert FAMILIES.keys() == {name for name, cls in OWN.items() if issubclass(cls, Layer)} - inside


@pytest.mark.parametrize("name", [name for name, cls in OWN.items() if not issubclass(cls, Layer)])
def test_every_head_is_drawn(name: str) -> None:
    """`heads()` draws every registered head class."""
    drawn = heads((2, 3))  # the pair of vectors, and the time and classes, that some heads ask for
    assert type(find(drawn, lambda head: type(head).__name__ == name, settings=settings(database=None, max_examples=2000))) is OWN[name]


def test_every_layer_and_head_is_public() -> None:
    """`backproof.Name` is the registered class, for every layer and head."""
    assert {name: getattr(backproof, name) for name in OWN} == OWN


def test_every_public_name_stays_what_it_is() -> None:
    """A name of the package gives the same object each time, and no module of that name hides it."""
    code = "import backproof as bp\nfor name in bp.__all__:\n    assert getattr(bp, name) is getattr(bp, name), name\n"
    code += "assert callable(bp.verify)"
    subprocess.run([sys.executable, "-c", code], check=True)
