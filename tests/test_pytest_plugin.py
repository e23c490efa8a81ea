"""The pytest plugin, by runs of pytest inside the tests: what a failure shows, what options count, where reports lie."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import backproof as bp
import pytest

assert bp.check  # loaded before the runs inside this process, which would load it anew each
assert bp.Report().save

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
INSTALLED = [point for point in entry_points(group="pytest11") if point.name == "backproof"]
PLUGIN = ["-p", "no:cacheprovider", *([] if INSTALLED else ["-p", "backproof.pytest_plugin"])]

CANDIDATES = """
import numpy as np

def relu(x):
    return np.maximum(x, 0), lambda dy: dy * (x > 0)

def linear(x, weight, bias):
    def backward(dy):
        rows = dy.reshape(-1, dy.shape[-1])
        return dy @ weight, {"weight": rows.T @ x.reshape(-1, x.shape[-1]), "bias": rows.sum(0) / len(dy)}
    return x @ weight.T + bias, backward
"""
HEADER = "import backproof as bp\nimport pytest\nfrom candidates import linear, relu\n"
WRONG = HEADER + """
def test_linear(backproof):
    backproof.check(linear, bp.Linear(3), framework="numpy", precisions=["float64"])
"""
NAMED = re.compile(r"[A-Za-z0-9._-]+")


@pytest.fixture(autouse=True)
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the candidates, in a wide terminal."""
    pytester.makepyfile(candidates=CANDIDATES)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize("ci", ["", "true"])
def test_the_summary_is_one_line_in_ci_too(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str) -> None:
    """pytest repeats whole messages in its summary where the environment names a CI; ours is long, and stands above already."""
    monkeypatch.setenv("CI", ci)
    pytester.makepyfile(test_layers=WRONG)
    result = run(pytester)
    (line,) = (line for line in result.outlines if line.startswith("FAILED"))
    assert line.endswith("GradientMismatch: wrong: Linear dbias on numpy:linear (float64)")
    assert sum("╭" in line for line in result.outlines) == 1


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest in this process, with warnings as errors and no marker that is not registered."""
    return pytester.runpytest_inprocess(*PLUGIN, "--strict-markers", "-W", "error", "--backproof-cases", "8", *arguments)


def test_a_right_candidate_passes_and_gives_its_report(pytester: pytest.Pytester) -> None:
    """`check` returns the report of the check."""
    pytester.makepyfile(HEADER + """
def test_relu(backproof):
    report = backproof.check(relu, bp.ReLU(), framework="numpy")
    assert report.ok and report.compared > 0 and report.cases == 8
    assert report.options["candidate"] == "numpy:relu"
""")
    run(pytester).assert_outcomes(passed=1)


def test_a_wrong_candidate_shows_the_finding_the_diagnosis_and_the_command(pytester: pytest.Pytester) -> None:
    """A failure shows the user's line, the report and how to run it again, and none of our frames."""
    pytester.makepyfile(test_layers=WRONG)
    result = run(pytester, "--backproof-seed", "4")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        '>*backproof.check(linear, bp.Linear(3), framework="numpy", precisions=[[]"float64"])',
        "E *GradientMismatch: wrong: Linear dbias on numpy:linear (float64)",
        "E *entries outside; worst dbias*", "E *excess * times the bound*",
        "E *diagnosis [[]over-batch]: dbias is divided by the batch size m = 2 once too often*",
        "E *smallest case: Linear(out_features=3, bias=True) on input *",
        "E *NOT OK: wrong; 1 unexplained finding",
        "E *again: pytest test_layers.py::test_linear --backproof-seed 4 --backproof-cases 8",
        "test_layers.py:*: GradientMismatch",
        "FAILED test_layers.py::test_linear - *GradientMismatch: wrong: Linear dbias on numpy:linear (float64)"])
    for ours in ("pytest_plugin.py", "checker.py", "What was compared"):
        assert ours not in result.stdout.str()


def test_the_command_that_is_shown_runs_the_same_check(pytester: pytest.Pytester) -> None:
    """The command of a failure, typed as it stands, gives the same numbers, for a test whose id a shell would take apart too."""
    pytester.makepyfile(test_layers=HEADER + """
@pytest.mark.parametrize("name", ["a b;'c"])
def test_linear(name, backproof):
    backproof.check(linear, bp.Linear(3), framework="numpy", precisions=["float64"])
""")
    first = run(pytester, "--backproof-seed", "11", "--backproof-cases", "5")
    (command,) = re.findall(r"again: pytest (.*)", first.stdout.str())
    again = pytester.runpytest_inprocess(*PLUGIN, *shlex.split(command))
    again.assert_outcomes(failed=1)
    facts = re.compile(r"worst|actual|expected|excess|seen|smallest|again")
    shown = [[line for line in result.outlines if facts.search(line)] for result in (first, again)]
    assert len(shown[0]) >= 6
    assert shown[0] == shown[1]


def test_the_command_holds_where_pytest_was_started(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the root of a project, the command names the file as it is reached from there."""
    pytester.makeini("[pytest]\npythonpath = .")
    pytester.mkdir("below").joinpath("test_layers.py").write_text(WRONG)
    monkeypatch.chdir(pytester.path / "below")
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *again: pytest test_layers.py::test_linear --backproof-seed 0 *", "FAILED test_*::test_linear *"])


def test_what_can_be_imported_is_checked_alone(pytester: pytest.Pytester) -> None:
    """The command for the check alone is shown for a function of a module, and for none that only the test can reach."""
    pytester.makepyfile(test_layers=WRONG + """
def halved(x):
    return relu(x)[0], lambda dy: dy * (x > 0) / 2

def test_own(backproof):
    backproof.check(halved, bp.ReLU(), framework="numpy")

def test_closure(backproof):
    backproof.check(lambda x: halved(x), bp.ReLU(), framework="numpy")

def test_shapes(backproof):
    backproof.check(linear, bp.Linear(3), framework="numpy", shapes=[(4,)])
""")
    result = run(pytester)
    result.assert_outcomes(failed=4)
    (command,) = re.findall(r"E +or: backproof (.*)", result.stdout.str())
    code = "from backproof.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *shlex.split(command)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1, done.stderr
    assert "dbias is divided by the batch size m = 2 once too often" in done.stdout


def test_names_of_parameters_are_in_the_command(pytester: pytest.Pytester) -> None:
    """The command for the check alone has the candidate's own names of its parameters, and is quoted for a shell."""
    pytester.makepyfile(own="""
from candidates import linear

def renamed(x, kernel, bias):
    y, backward = linear(x, kernel, bias)

    def back(dy):
        dx, found = backward(dy)
        return dx, {"kernel": found["weight"], "bias": found["bias"]}
    return y, back
""", test_layers=HEADER + """
from own import renamed

def test_renamed(backproof):
    backproof.check(renamed, bp.Linear(3), framework="numpy", params={"kernel": "weight"}, precisions=["float64"])
""")
    result = run(pytester)
    result.assert_outcomes(failed=1)
    (command,) = re.findall(r"E +or: (.*)", result.stdout.str())
    assert shlex.split(command) == shlex.split(
        "backproof check own:renamed --like 'Linear(out_features=3, bias=True)' --framework numpy --param kernel=weight "
        "--precision float64 --seed 0 --cases 8")


def test_a_torch_module_is_checked(pytester: pytest.Pytester) -> None:
    """A torch.nn.Module needs no framework named; a wrong autograd.Function inside it is found."""
    pytester.makepyfile("""
import backproof as bp
import torch

class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        return 2 * dy

class Double(torch.nn.Module):
    def forward(self, x):
        return Scale.apply(x)

def test_right(backproof):
    backproof.check(torch.nn.Identity(), bp.Identity())

def test_wrong(backproof):
    backproof.check(Double(), bp.Identity())
""")
    result = pytester.runpytest_subprocess(*PLUGIN, "-W", "error", "--backproof-cases", "8")  # torch cannot be loaded anew
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E *wrong: Identity dx on torch:Double (float*)", "E *diagnosis [[]doubled]: dx is twice too large*"])


def test_a_candidate_that_raises_is_a_failure_with_its_message(pytester: pytest.Pytester) -> None:
    """What a candidate raises stands in the failure."""
    pytester.makepyfile(HEADER + """
def broken(x):
    raise RuntimeError("no kernel for this shape")

def test_broken(backproof):
    backproof.check(broken, bp.ReLU(), framework="numpy")
""")
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *error: ReLU*", "E *no kernel for this shape*"])


def test_several_findings_are_counted_on_the_summary_line(pytester: pytest.Pytester) -> None:
    """The summary line names the worst finding and says how many there are beside it."""
    pytester.makepyfile(HEADER + """
def worse(x, weight, bias):
    y, backward = linear(x, weight, bias)
    return y, lambda dy: (-backward(dy)[0], backward(dy)[1])

def test_worse(backproof):
    backproof.check(worse, bp.Linear(3), framework="numpy", precisions=["float64"])
""")
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *1. wrong: Linear d*", "E *2. wrong: Linear d*", "FAILED *: wrong: Linear d*, and 1 more finding"])


def test_wrong_usage_says_what_to_write(pytester: pytest.Pytester) -> None:
    """A candidate that cannot be called is an error of the test, with the sentence of `bp.check` on the summary line."""
    pytester.makepyfile(HEADER + """
def test_relu(backproof):
    backproof.check(relu, bp.ReLU())
""")
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*UsageError: framework: got none, * Write framework='torch', 'jax' or 'numpy'", "FAILED *UsageError: *"])


def test_a_mismatch_can_be_expected(pytester: pytest.Pytester) -> None:
    """A test of a checker catches the exception and reads its report."""
    pytester.makepyfile(HEADER + """
def test_linear(backproof):
    with pytest.raises(bp.GradientMismatch, match="over-batch") as caught:
        backproof.check(linear, bp.Linear(3), framework="numpy")
    assert caught.value.report.verdict == "wrong"
""")
    run(pytester).assert_outcomes(passed=1)


def test_the_fixture_does_not_shadow_the_module(pytester: pytest.Pytester) -> None:
    """A test file imports the module by its own name and uses it outside of the tests that take the fixture."""
    pytester.makepyfile("""
import backproof
import backproof as bp
from candidates import relu

LIKE = backproof.ReLU()

def test_module():
    backproof.assert_gradients(relu, LIKE, framework="numpy", cases=2)

def test_fixture(backproof):
    assert backproof.check(relu, bp.ReLU(), framework="numpy").ok
""")
    run(pytester).assert_outcomes(passed=2)


OPTIONS = HEADER + """
{marker}
def test_relu(backproof):
    report = backproof.check(relu, bp.ReLU(), framework="numpy"{call})
    print("got", report.options["cases"], report.options["seed"], report.options["precisions"])
"""
PRECISIONS = "['float64', 'float32']"


@pytest.mark.parametrize(("call", "marker", "arguments", "ini", "got"), [
    ("", "", [], "", f"100 0 {PRECISIONS}"),
    ("", "", [], "backproof_cases = 3\nbackproof_seed = 8", f"3 8 {PRECISIONS}"),
    ("", "", ["--backproof-cases=4"], "backproof_cases = 3\nbackproof_seed = 8", f"4 8 {PRECISIONS}"),
    ("", "", ["--backproof-seed=0"], "backproof_cases = 3\nbackproof_seed = 8", f"3 0 {PRECISIONS}"),
    ("", "cases=5, precisions=('float32',)", ["--backproof-cases=4", "--backproof-seed=2"], "", "5 2 ['float32']"),
    (", cases=6", "cases=5, seed=7", ["--backproof-cases=4"], "", f"6 7 {PRECISIONS}"),
    (", cases=2, seed=1, precisions=['float64']", "cases=5, seed=7, precisions=['float32']", [], "", "2 1 ['float64']"),
], ids=["default", "ini", "cases-option", "seed-option", "marker", "call", "call-alone"])
def test_call_goes_before_marker_before_command_line_before_ini(call: str, marker: str, arguments: list[str], ini: str, got: str,
                                                               pytester: pytest.Pytester) -> None:
    """Each option is taken from the nearest place that sets it."""
    pytester.makepyfile(OPTIONS.format(call=call, marker=f"@pytest.mark.backproof({marker})" if marker else ""))
    pytester.makeini(f"[pytest]\n{ini}")
    result = pytester.runpytest_inprocess(*PLUGIN, "--strict-markers", "-s", *arguments)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*got {got.replace('[', '[[]')}*"])


def test_the_nearest_marker_counts(pytester: pytest.Pytester) -> None:
    """The marker of a test goes before that of its class, option by option."""
    pytester.makepyfile(HEADER + """
@pytest.mark.backproof(cases=3, seed=5)
class TestLayers:
    @pytest.mark.backproof(cases=2)
    def test_relu(self, backproof):
        report = backproof.check(relu, bp.ReLU(), framework="numpy")
        assert (report.options["cases"], report.options["seed"]) == (2, 5)
""")
    run(pytester).assert_outcomes(passed=1)


def test_the_marker_is_listed(pytester: pytest.Pytester) -> None:
    """`pytest --markers` and `pytest --fixtures` tell of the plugin."""
    assert "@pytest.mark.backproof(precisions=(...), cases=N, seed=S): " in run(pytester, "--markers").stdout.str()
    run(pytester, "--fixtures", "-v").stdout.fnmatch_lines(["backproof*pytest_plugin.py*", "*Check gradients: *"])


@pytest.mark.parametrize(("arguments", "said"), [
    ("case=3", "unknown argument: got case, expected one of cases, precisions, seed"),
    ("3", "got 3 without a name, expected cases=..., precisions=... or seed=..."),
    ("cases=0", "cases: got 0, expected a whole number from 1 upward"),
    ("cases=True", "cases: got True, expected a whole number from 1 upward"),
    ("seed=-1", "seed: got -1, expected a whole number from 0 upward"),
    ("seed='x'", "seed: got 'x', expected a whole number from 0 upward"),
    ("precisions='float32'", """precisions: got 'float32', expected names, such as ("float64", "float32")"""),
    ("precisions=(32,)", """precisions: got (32,), expected names, such as ("float64", "float32")"""),
])
def test_a_wrong_marker_is_one_line(arguments: str, said: str, pytester: pytest.Pytester) -> None:
    """Wrong arguments of a marker are an error of that test, in a line that says what is expected; other tests run."""
    pytester.makepyfile(f"""
import pytest

@pytest.mark.backproof({arguments})
def test_marked(backproof):
    pass

def test_other():
    pass
""")
    result = run(pytester)
    result.assert_outcomes(passed=1, errors=1)
    assert f"@pytest.mark.backproof: {said}" in result.outlines
    assert "pytest_plugin.py" not in result.stdout.str()


@pytest.mark.parametrize(("arguments", "said"), [
    (["--backproof-cases", "0"], "argument --backproof-cases: got 0, expected a whole number from 1 upward"),
    (["--backproof-seed", "many"], "argument --backproof-seed: got 'many', expected a whole number from 0 upward"),
    (["-o", "backproof_seed=-3"], "ERROR: backproof_seed: got -3, expected a whole number from 0 upward"),
    (["-o", "backproof_cases=few"], "ERROR: backproof_cases: got 'few', expected a whole number from 1 upward"),
])
def test_a_wrong_option_is_wrong_usage(arguments: list[str], said: str, pytester: pytest.Pytester) -> None:
    """Options and ini values that are no such numbers end pytest before any test, with status 4."""
    result = pytester.runpytest_inprocess(*PLUGIN, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()


REPORTED = HEADER + """
@pytest.mark.parametrize("name", ["a/b", "a_b", "../..", "\\u00fc <script>"])
def test_relu(name, backproof):
    backproof.check(relu, bp.ReLU(), framework="numpy", cases=2)

def test_twice(backproof):
    backproof.check(relu, bp.ReLU(), framework="numpy", cases=2)
    backproof.check(linear, bp.Linear(3), framework="numpy", cases=4)
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_each_test_has_its_folder_of_reports(workers: tuple[str, ...], pytester: pytest.Pytester) -> None:
    """Reports lie in a folder per test with a safe name; the main process says where, also what workers wrote."""
    pytester.makepyfile(test_layers=REPORTED)
    result = pytester.runpytest_subprocess(*PLUGIN, *workers, "--backproof-reports", "out", "--junit-xml", "junit.xml")
    result.assert_outcomes(passed=4, failed=1)
    folders = sorted((pytester.path / "out").iterdir())
    assert len(folders) == 5
    assert all(NAMED.fullmatch(folder.name) and folder.name.startswith("test_layers.py_test_") for folder in folders)
    assert [len(list(folder.glob("*/report.json"))) for folder in folders] == [1, 1, 1, 1, 2]
    verdicts = [json.loads(path.read_text())["verdict"] for path in folders[-1].glob("*/report.json")]
    assert [verdict == "wrong" for verdict in verdicts].count(True) == 1
    line = "test_layers.py::test_twice: out/test_layers.py_test_twice-*/*/report.md"
    result.stdout.fnmatch_lines(["E *report: out/test_layers.py_test_twice-*/report.md", "*= backproof reports =*", line, line,
                                 "6 reports below out"])
    told = re.findall(r'<property name="backproof_report" value="(.*?)"', (pytester.path / "junit.xml").read_text())
    assert sorted(told) == sorted(map(str, (pytester.path / "out").glob("*/*/report.md")))


def test_reports_may_be_asked_for_in_the_ini_file_and_refused_in_a_call(pytester: pytest.Pytester) -> None:
    """An ini value counts from the ini file's folder; a call's own `reports` goes before it, and None writes nothing."""
    pytester.makeini("[pytest]\nbackproof_reports = kept\npythonpath = .")
    pytester.mkdir("below").joinpath("test_layers.py").write_text(HEADER + """
def test_ini(backproof):
    backproof.check(relu, bp.ReLU(), framework="numpy")

def test_none(backproof):
    backproof.check(relu, bp.ReLU(), framework="numpy", reports=None)

def test_own(backproof, tmp_path):
    backproof.check(relu, bp.ReLU(), framework="numpy", reports=tmp_path / "own")
    assert len(list((tmp_path / "own").glob("*/report.md"))) == 1
""")
    result = run(pytester, "below")
    result.assert_outcomes(passed=3)
    (folder,) = (pytester.path / "kept").iterdir()
    assert folder.name.startswith("below_test_layers.py_test_ini-")
    result.stdout.fnmatch_lines(["2 reports below kept"])


def test_without_reports_nothing_is_written_or_said(pytester: pytest.Pytester) -> None:
    """No option, no folder and no section."""
    pytester.makepyfile(test_layers=WRONG)
    before = set(pytester.path.iterdir())
    result = run(pytester)
    assert {path.name for path in set(pytester.path.iterdir()) - before} <= {"__pycache__"}
    assert "backproof reports" not in result.stdout.str()


def test_a_narrow_terminal_gets_a_narrow_report(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The panel fits the terminal, which pytest's own margin narrows."""
    monkeypatch.setenv("COLUMNS", "90")
    pytester.makepyfile(test_layers=WRONG)
    boxes = [line for line in run(pytester).outlines if "╭" in line]
    assert [len(line.removeprefix("E").strip()) <= 86 for line in boxes] == [True]


def test_the_page_shows_what_is_printed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of docs/pytest.md print what stands there, whatever the numbers; its property test passes, and its marker is taken."""
    monkeypatch.setenv("COLUMNS", "114")
    page = (ROOT / "docs" / "pytest.md").read_text(encoding="utf-8")
    layers, checked, marked, drawn = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    failure, ending = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    pytester.makepyfile(layers=layers, test_layers=checked, test_drawn=drawn, test_marked="import pytest\n\n" + marked)
    result = pytester.runpytest_subprocess(*PLUGIN, "--strict-markers", "--backproof-reports", "reports")
    result.assert_outcomes(passed=1, failed=1)
    printed = [faceless(line) for line in result.outlines]
    for line in (failure + ending).splitlines():
        assert faceless(line) in printed


def faceless(line: str) -> str:
    """Return a line without its numbers, and without what pads it or draws a line around it to the width of a terminal."""
    return re.sub(r"-?\d[\d,.]*(e[+-]?\d+)?", "#", re.sub(r"reports/\S+", "reports/...", line.strip("=─╮╰╯│ \n")))


def test_the_plugin_is_registered() -> None:
    """The distribution announces the plugin to pytest by its entry point."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"backproof": "backproof.pytest_plugin"}
    assert [point.value for point in INSTALLED] in ([], ["backproof.pytest_plugin"])


LOADING = """
import sys, time, pytest, argparse, hashlib, shlex, shutil
before, start = set(sys.modules), time.perf_counter()
import backproof.pytest_plugin
print(time.perf_counter() - start, *sorted(set(sys.modules) - before))
"""


def test_loading_the_plugin_costs_next_to_nothing() -> None:
    """It loads in less than 20 ms, in the best of five processes, and brings in nothing but the package and two rooms that do nothing."""
    taken = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, check=True)
        seconds, *loaded = done.stdout.split()
        taken.append(float(seconds))
        assert [name for name in loaded if not name.startswith("__editable__")] == [
            "backproof", "backproof.check", "backproof.pytest_plugin", "backproof.verify"]
    assert min(taken) < 0.02


def test_a_run_without_a_check_imports_no_framework(pytester: pytest.Pytester) -> None:
    """A run of pytest with the plugin that makes no check loads neither numpy, torch, jax nor Hypothesis by it."""
    pytester.makepyfile("""
import sys

def test_nothing_heavy(backproof):
    assert {"numpy", "torch", "jax", "hypothesis", "rich", "click"}.isdisjoint(sys.modules)
""")
    result = pytester.runpytest_subprocess(*PLUGIN, "-p", "no:hypothesispytest", "--backproof-seed", "1")
    result.assert_outcomes(passed=1)
