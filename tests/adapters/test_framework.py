"""A framework is one object, found by its entry point; one that is a file from elsewhere works wherever ours do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from backproof.adapters import names
from backproof.adapters.framework import Framework, all_frameworks, default_adapters, framework_named, framework_version, owner
from backproof.judge import known

COMMAND = [sys.executable, "-c", "from backproof.cli import main; main()"]
CHECK = ("check", "--like", "Linear(2)", "--framework", "plain", "--cases", "8", "--precision", "float64")

MINE = """
from plain_framework import Rule


def right(x, weight, bias):
    rows = lambda a: a.reshape(-1, a.shape[-1])
    return x @ weight.T + bias, lambda dy: (dy @ weight, {"weight": rows(dy).T @ rows(x), "bias": rows(dy).sum(0)})


def wrong(x, weight, bias):
    y, backward = right(x, weight, bias)

    def halved(dy):
        dx, d_params = backward(dy)
        return dx, d_params | {"weight": d_params["weight"] / 2}

    return y, halved


rule = Rule(right)
"""


def registered(folder: Path, source: str, entry: str = "plain = plain_framework:framework", project: str = "plain_framework") -> None:
    """Write a distribution of one module with a framework in the entry-point group, as another project would."""
    (folder / f"{project}.py").write_text(source)
    info = folder / f"{project}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[backproof.frameworks]\n{entry}\n")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the framework `plain` is installed, with two candidates."""
    folder = tmp_path_factory.mktemp("home")
    registered(folder, (Path(__file__).parent / "plain_framework.py").read_text())
    (folder / "mine.py").write_text(MINE)
    (folder / "mended.py").write_text("import mine\n\n\ndef wrong(x, weight, bias):\n    return mine.right(x, weight, bias)\n")
    return folder


def ran(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=folder,
                          env={**os.environ, "PYTHONPATH": path})


def said(folder: Path, code: str) -> list[str]:
    """Return the lines that a program prints where the distributions of a folder are installed."""
    done = ran(folder, sys.executable, "-c", code)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def wrong(home: Path) -> Path:
    """The folder of the report of `backproof check` on the wrong candidate."""
    done = ran(home, *COMMAND, *CHECK, "mine:wrong", "--reports", "found", "--timeout", "60")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "plain:wrong" in done.stdout
    (report,) = (home / "found").iterdir()
    return report


def test_a_framework_of_one_file_is_checked(home: Path) -> None:
    """`check` takes its name, finds out its own type, agrees with a right candidate and blames the right tensor of a wrong one."""
    lines = said(home, """
import sys
import backproof as bp
import mine
for candidate, framework in ((mine.right, "plain"), (mine.rule, None), (mine.wrong, "plain")):
    report = bp.check(candidate, bp.Linear(2), framework=framework, cases=8)
    print(report.ok, report.options["candidate"], *sorted({f"{f.tensor} {f.verdict} {f.diagnosis.code}" for f in report.findings}))
print({name: report.environment[name] for name in ("plain-framework", "plain threads")})
print(sorted({"torch", "jax"} & set(sys.modules)))
""")
    assert lines == ["True plain:right", "True plain:Rule", "False plain:wrong dweight wrong halved",
                     "{'plain-framework': '1.0', 'plain threads': '1'}", "[]"]


def test_its_report_stands_on_disk_and_its_script_alone(home: Path, wrong: Path) -> None:
    """The script is made of the framework's own lines, shows the mistake without backproof, and the case replays."""
    data = json.loads((wrong / "report.json").read_text())
    assert {finding["tensor"] for finding in data["findings"]} == {"dweight"}
    assert data["findings"][0]["case"]["framework"] == "plain"
    assert data["environment"]["plain-framework"] == "1.0"
    assert "plain:wrong" in (wrong / "report.html").read_text()
    (place,) = (path for path in wrong.iterdir() if path.is_dir())
    source = (place / "repro.py").read_text()
    assert "backproof" not in source
    assert "dx, d_params = backward(*dys)" in source
    assert "Needs numpy, and the candidate." in source
    shown = ran(home, sys.executable, str(place / "repro.py"))
    assert shown.returncode == 1, shown.stdout + shown.stderr
    assert "dweight[" in shown.stdout
    again = ran(home, *COMMAND, "replay", str(place / "case.json"))
    assert again.returncode == 1, again.stdout + again.stderr
    assert "dweight" in again.stdout


def test_its_reports_are_compared(home: Path, wrong: Path) -> None:
    """`diff` says that the mended candidate is better, and that the other way round it is worse."""
    done = ran(home, *COMMAND, *CHECK, "mended:wrong", "--reports", "good")
    assert done.returncode == 0, done.stdout + done.stderr
    for pair, status, word in (((str(wrong), "good"), 0, "better"), (("good", str(wrong)), 1, "worse")):
        done = ran(home, *COMMAND, "diff", *pair, "--format", "json")
        assert done.returncode == status, done.stdout + done.stderr
        assert {(line["about"]["candidate"], line["weight"]) for line in json.loads(done.stdout)["lines"]} == {("plain:wrong", word)}


def test_every_list_names_it(home: Path) -> None:
    """Frameworks, adapters, those that run by default, the choices of the command line, the words of errors."""
    assert said(home, """
from backproof.adapters import names
from backproof.adapters.framework import all_frameworks, default_adapters, framework_version
print(*(one.name for one in all_frameworks()))
print(*default_adapters())
print("plain:rules" in names(), framework_version("plain"))
""") == ["torch jax numpy plain", "torch jax:jit plain:rules", "True 1.0"]
    unknown = ran(home, *COMMAND, "check", "mine:right", "--like", "Linear(2)", "--framework", "tensorflow")
    assert (unknown.returncode, "'torch', 'jax', 'numpy', 'plain'" in unknown.stderr) == (2, True), unknown.stderr
    none = ran(home, *COMMAND, "check", "mine:right", "--like", "Linear(2)")
    assert "Write framework='torch', 'jax', 'numpy' or 'plain'" in none.stderr
    assert "the candidate is not a torch.nn.Module or torch.autograd.Function or a plain_framework.Rule" in none.stderr


def test_its_mode_is_verified(home: Path) -> None:
    """Random networks run through its adapter."""
    assert said(home, """
import backproof as bp
report = bp.verify(adapters=["plain:rules"], cases=8, layers=["Linear", "Tanh"], reports=None)
print(report.ok, report.compared > 0, *report.options["adapters"])
""") == ["True True plain:rules"]


@pytest.mark.parametrize(("source", "entry", "error"), [
    ("framework = 3", "odd = odd:framework", "entry point odd:framework holds 3, expected a Framework"),
    ("from backproof.adapters import Framework\nframework = Framework('even')", "odd = odd:framework",
     "entry point odd:framework holds a framework called even, expected odd"),
    ("from backproof.adapters import Framework\nframework = Framework('odd', adapters={'even': 'a:b'})", "odd = odd:framework",
     "framework odd: wrong name of an adapter: got even, expected odd or odd:MODE"),
    ("from backproof.adapters import Framework\nframework = Framework('odd', default='odd:x', adapters={'odd': 'a:b'})",
     "odd = odd:framework", "framework odd: unknown default: got odd:x, expected one of odd"),
    ("import nowhere_to_be_found", "odd = odd:framework", "No module named 'nowhere_to_be_found'"),
    ("from backproof.adapters import Framework\nframework = Framework('torch')", "torch = odd:framework",
     "framework torch is registered twice: by "),
])
def test_one_that_cannot_be_used_costs_nobody_else_anything(source: str, entry: str, error: str, tmp_path: Path) -> None:
    """It is left out with a warning that says why, and refused with the same words where it is asked for."""
    registered(tmp_path, source, entry, "odd")
    name = entry.partition(" ")[0]
    warned, refused, others = said(tmp_path, f"""
import warnings
from backproof.adapters.framework import all_frameworks, framework_named
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    others = [one.name for one in all_frameworks()]
print(*(warning.message for warning in caught))
try:
    framework_named({name!r})
except ValueError as error:
    print(error)
print(*others)
""")
    assert warned.startswith(f"framework {name} is left out: {error}")
    assert refused.startswith(f"framework {name} cannot be used: {error}")
    assert others.split() == [one for one in ("torch", "jax", "numpy") if one != name]


def test_what_is_known_of_a_framework_is_nobodys_to_import() -> None:
    """Lists, versions, environment, known discrepancies and the owner of a candidate import neither torch nor jax."""
    assert said(Path(__file__).parent, """
import sys
from backproof.adapters import names
from backproof.adapters.framework import all_frameworks, default_adapters, owner
from backproof.judge.known import load_known
from backproof.reference import library
from backproof.report.environment import environment
library.load_all()
assert names() and default_adapters() and owner(print) is None and load_known()
assert all(one.installed() for one in all_frameworks())
found = environment()
print(*(name for name in found if name in {"backproof", "numpy", "scipy", "torch", "jax", "jaxlib", "ml_dtypes", "torch threads"}))
print(sorted({"torch", "jax"} & set(sys.modules)))
""") == ["backproof numpy scipy torch jax jaxlib ml_dtypes", "[]"]


class Doubled(torch.autograd.Function):
    """Twice what comes."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return 2 * dy


@pytest.mark.parametrize("given", [torch.nn.Linear(2, 2), torch.nn.Sequential(), Doubled, Doubled.apply], ids=str)
def test_torch_owns_modules_and_functions(given: Any) -> None:
    """By their type, which needs no name of a framework."""
    found = owner(given)
    assert found is not None
    assert found.name == "torch"


@pytest.mark.parametrize("given", [torch.tanh, print, 3, torch.nn.Linear, lambda x: x, torch.zeros(2)],
                         ids=["tanh", "print", "3", "Linear", "lambda", "zeros"])
def test_what_tells_nothing_has_no_owner(given: Any) -> None:
    """A function may be any framework's."""
    assert owner(given) is None


def test_ours_are_the_entry_points_of_the_package() -> None:
    """Three frameworks, in this order wherever they are listed; their adapters bear their names."""
    assert [one.name for one in all_frameworks()] == ["torch", "jax", "numpy"]
    assert default_adapters() == ("torch", "jax:jit")
    assert {name.partition(":")[0] for name in names()} == {"torch", "jax"}
    assert framework_version("torch") == torch.__version__
    assert framework_version("nowhere-to-be-found") == ""


def test_an_unknown_framework_is_refused_with_the_known_names() -> None:
    """One sentence says what it got and lists every name there is."""
    with pytest.raises(ValueError, match=r"^unknown framework: got 'tensorflow', expected one of torch, jax, numpy$"):
        framework_named("tensorflow")


def test_a_framework_that_takes_no_candidates_says_which_do() -> None:
    """One that has modes alone is no choice of `check`."""
    with pytest.raises(ValueError, match=r"^framework modes takes no candidates: expected one of torch, jax, numpy$"):
        Framework("modes").driver()


def test_a_framework_ships_its_own_known_discrepancies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is read beside ours, whatever it is called, and speaks of its adapters."""
    file = tmp_path / "list.toml"
    file.write_text('[[known]]\nid = "a"\nlayers = ["ReLU"]\ntensors = ["dx"]\nverdicts = ["wrong"]\nreason = "because"\n')
    monkeypatch.setattr(known, "all_frameworks", lambda: (*all_frameworks(), Framework("plain", known=file)))
    known.load_known.cache_clear()
    found = known.load_known()
    known.load_known.cache_clear()
    assert {entry.framework for entry in found} == {"jax", "torch", "plain"}
    assert [entry.id for entry in found if entry.framework == "plain"] == ["a"]
