"""Reports on disk: whole files, documented fields, and reproductions that stand alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backproof.adapters import load
from backproof.judge.diagnosis import Diagnosis
from backproof.reference.activations import GELU, Hardsigmoid, LeakyReLU
from backproof.reference.case import Case
from backproof.reference.heads import BCEWithLogitsLoss, MSELoss
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.trace import Trace
from backproof.report.disk import ReportFolder
from backproof.report.finding import Finding
from backproof.report.folders import folder_name
from backproof.report.report import Report
from backproof.verify.run import Run, verify

HERE = Network((6,), (Linear(5), Hardsigmoid(), Linear(3)), MSELoss())


class Halved:
    """Torch with a weight gradient of half the size."""

    name = "torch"

    def run(self, case: Case) -> Trace:
        trace = load("torch").run(case)
        return replace(trace, layers=tuple(
            replace(s, d_params={**s.d_params, "weight": s.d_params["weight"] / 2}) if "weight" in s.d_params else s
            for s in trace.layers))


def _run(adapter: object, case: Case) -> Report:
    run = Run([adapter], 1, 0, (case.precision,), None, None)  # type: ignore[list-item]
    run.examine(case)
    return run.report()


def _script(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(folder / "repro.py")], capture_output=True, text=True, timeout=120, check=False, cwd="/")


@pytest.mark.parametrize(
    ("adapter", "case"),
    [
        ("torch", Case(HERE, 1, "normal", 4, "float64")),
        ("torch", Case(Network((40,), (Hardsigmoid(),), MSELoss()), 1, "normal", 33, "float64")),
        ("torch", Case(Network((8,), (GELU(),), MSELoss()), 0, "normal", 33, "float32")),
        ("torch", Case(Network((1,), (), BCEWithLogitsLoss()), 12, "saturated", 1, "float64")),
        ("jax:jit", Case(Network((8,), (GELU("tanh"),), MSELoss()), 3, "saturated", 4, "float64")),
        ("jax", Case(Network((8,), (LeakyReLU(0.25),), MSELoss()), 3, "zeros", 2, "float32")),
    ],
)
def test_reproduction_stands_alone(adapter: str, case: Case, tmp_path: Path) -> None:
    """repro.py needs neither backproof nor the working folder, has at most 60 lines and exits 1 while the discrepancy exists."""
    report = _run(load(adapter), case)
    shown = [*report.findings, *report.known, *report.conventions]
    assert shown, "the case was chosen because it shows a discrepancy"
    folder = report.save(tmp_path)
    for finding in shown:
        place = folder / folder_name(finding)
        source = (place / "repro.py").read_text()
        assert len(source.splitlines()) <= 60
        assert "backproof." not in source
        done = _script(place)
        assert done.returncode == 1, done.stdout + done.stderr
        assert f"expected {finding.expected!r}" in done.stdout
        assert "Traceback" not in done.stderr


def test_reproduction_exits_0_when_the_discrepancy_is_gone(tmp_path: Path) -> None:
    """A finding that the framework does not show is reported as gone by its own script."""
    report = _run(Halved(), Case(Network((3,), (Linear(2),), MSELoss()), 1, "normal", 4, "float64"))
    folder = report.save(tmp_path)
    done = _script(folder / folder_name(report.findings[0]))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_of_a_report_is_there_and_readable(tmp_path: Path) -> None:
    """report.json, report.md, and per finding finding.json, case.json, tensors without pickle, repro.py."""
    report = verify(adapters=[Halved()], cases=16, layers=["Linear", "ReLU"], reports=tmp_path)
    (folder,) = tmp_path.iterdir()
    data = json.loads((folder / "report.json").read_text())
    assert data["schema"] == 1
    assert data["ok"] is False
    assert data["compared"] == report.compared > 0
    assert data["findings"][0]["layer"] == "Linear"
    assert set(data["environment"]) >= {"python", "numpy", "torch", "jax", "cpu", "cores", "torch threads"}
    place = folder / folder_name(report.findings[0])
    assert Case.from_json((place / "case.json").read_text()) == report.findings[0].case
    assert json.loads((place / "finding.json").read_text())["diagnosis"]["code"] == "halved"
    with np.load(place / "tensors.npz", allow_pickle=False) as arrays:
        assert arrays["actual"].shape == arrays["expected"].shape == arrays["bound"].shape
    text = (folder / "report.md").read_text()
    assert "dweight" in text
    assert "half of what it should be" in text
    assert not [f for f in folder.rglob("*") if "partial" in f.name]


def test_every_field_of_the_json_is_documented() -> None:
    """docs/report.md names each field that report.json and finding.json have."""
    report = _run(load("torch"), Case(HERE, 1, "normal", 4, "float64"))
    data = json.loads(report.to_json())
    document = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    fields = {*data, *data["self_test"], *data["tallies"][0], *data["known"][0], *data["known"][0]["entries"]}
    assert not [name for name in fields if f"`{name}`" not in document]


def test_a_run_that_dies_leaves_whole_files(tmp_path: Path) -> None:
    """A report interrupted between files holds complete findings and no report.json."""
    report = _run(load("torch"), Case(HERE, 1, "normal", 4, "float64"))
    target = ReportFolder(tmp_path)
    place = target.add(report.known[0])
    assert json.loads((place / "finding.json").read_text())
    assert not (target.path / "report.json").exists()


def test_two_reports_of_one_second_get_two_folders(tmp_path: Path) -> None:
    """Report folders never overwrite each other."""
    assert ReportFolder.new(tmp_path).path != ReportFolder.new(tmp_path).path


def test_infinite_numbers_are_written_as_strings(tmp_path: Path) -> None:
    """JSON has no infinity: an infinite excess is the string `inf`."""
    report = _run(load("torch"), Case(HERE, 1, "normal", 4, "float64"))
    finding = replace(report.known[0], excess=float("inf"), actual=float("nan"))
    assert finding.describe()["excess"] == "inf"
    assert json.loads(replace(report, known=(finding,)).to_json())["known"][0]["actual"] == "nan"


@pytest.mark.parametrize(("finding_bytes", "report_bytes"), [(3000, 10**9), (10**9, 3000)])
def test_large_tensors_are_cut_down_to_the_worst_entry(finding_bytes: int, report_bytes: int, tmp_path: Path) -> None:
    """Beyond the limit of a finding or of the report, what lies around the worst entry is kept; no script asks for what is not there."""
    report = _run(Halved(), Case(Network((40,), (Linear(33),), MSELoss()), 1, "normal", 16, "float64"))
    target = ReportFolder(tmp_path, finding_bytes, report_bytes)
    target.write(report)
    (finding,) = report.findings
    place = target.path / folder_name(finding)
    described = json.loads((place / "finding.json").read_text())
    assert described["tensors"].startswith("only actual, expected and bound up to 4 entries around the worst one")
    assert (place / "tensors.npz").stat().st_size < 3000
    with np.load(place / "tensors.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"actual", "expected", "bound", "first"}
        at = tuple(np.array(finding.index) - arrays["first"])
        assert float(arrays["actual"][at]) == finding.actual
        assert float(arrays["expected"][at]) == finding.expected
        assert max(arrays["actual"].shape) <= 9
    assert not (place / "repro.py").exists()
    text = (target.path / "report.md").read_text()
    assert "repro.py" not in text
    assert "repro.py" not in (target.path / "report.html").read_text()
    assert f"backproof replay {folder_name(finding)}/case.json --adapter torch" in text
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]
    again = ReportFolder(tmp_path, finding_bytes, report_bytes)
    restored = again.restored(Finding.restored(json.loads(json.dumps(finding.describe()))))
    again.write(replace(report, findings=(restored,)))
    assert restored.certificate is None
    assert json.loads((place / "finding.json").read_text()) == described
    assert (target.path / "report.md").read_text() == text


def test_small_tensors_are_kept_whole(tmp_path: Path) -> None:
    """Under the limits nothing is cut, and nothing is said."""
    report = _run(Halved(), Case(Network((40,), (Linear(33),), MSELoss()), 1, "normal", 16, "float64"))
    place = report.save(tmp_path) / folder_name(report.findings[0])
    assert "tensors" not in json.loads((place / "finding.json").read_text())
    assert (place / "repro.py").exists()
    with np.load(place / "tensors.npz", allow_pickle=False) as arrays:
        assert arrays["actual"].shape == (33, 40)


def _pages(folder: Path) -> dict[str, str]:
    """What people see of a report, without the seconds."""
    texts = {name: (folder / name).read_text() for name in ("report.html", "report.md")}
    return {name: re.sub(r"seconds, \w+.*?</dd>", "", text, flags=re.DOTALL) for name, text in texts.items()}


def _files_of(folder: Path) -> dict[str, Any]:
    """The files of the findings, arrays as their bytes."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*/*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                found[name] = {key: (a.dtype, a.shape, a.tobytes()) for key, a in arrays.items()}
        else:
            found[name] = path.read_text()
    return found


class Sloppy(Halved):
    """The same with jax's slope at zero, 1, in a leaky ReLU."""

    def run(self, case: Case) -> Trace:
        trace = super().run(case)
        return replace(trace, layers=tuple(
            replace(s, d_inputs=(np.where(s.inputs[0] == 0, s.d_output, s.d_inputs[0]),)) if isinstance(s.layer, LeakyReLU) else s
            for s in trace.layers))


OPTIONS: dict[str, Any] = {"seed": 5, "layers": ["Hardsigmoid", "LeakyReLU", "Linear"], "precisions": ("float64", "bfloat16")}


def test_a_run_that_goes_on_shows_what_an_undisturbed_one_does(tmp_path: Path) -> None:
    """Heat maps, numbers, scripts and files of findings from before the break are there, to the last bit; what was lost costs itself."""
    load("torch")  # the environment of a report says how many threads it has
    options = {**OPTIONS, "adapters": [Sloppy()]}
    whole = verify(**options, cases=32, reports=tmp_path / "whole")
    for cases in (12, 24):
        verify(**options, cases=cases, reports=tmp_path / "broken", resume=next((tmp_path / "broken").iterdir()) if cases > 12 else None)
    (folder,), (undisturbed,) = (tmp_path / "broken").iterdir(), (tmp_path / "whole").iterdir()
    verify(**options, cases=32, resume=folder)
    assert whole.findings
    assert whole.known
    assert whole.conventions
    assert _pages(undisturbed)["report.html"].count('class="heat') >= 3
    assert _pages(folder) == _pages(undisturbed)
    assert _files_of(folder) == _files_of(undisturbed)
    lost = folder / folder_name(whole.conventions[0])
    (lost / "tensors.npz").write_bytes(b"PK damaged")
    verify(**options, cases=32, resume=folder)
    assert _pages(folder)["report.md"] == _pages(undisturbed)["report.md"]
    assert _pages(folder)["report.html"].count('class="heat') == _pages(undisturbed)["report.html"].count('class="heat') - 1


def test_the_script_of_a_run_in_processes_calls_the_framework(tmp_path: Path) -> None:
    """The process that writes a report has loaded no framework; what repro.py calls comes from a worker, also where a run goes on."""
    command = [sys.executable, "-c", "from backproof.cli import main; main()", "verify", "--quiet"]
    arguments = ["--adapter", "torch", "--layers", "Hardsigmoid,Linear", "--seed", "5", "--cases", "8", "--reports", str(tmp_path)]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    (folder,) = tmp_path.iterdir()
    (place,) = (path for path in folder.iterdir() if path.is_dir())
    source = (place / "repro.py").read_text()
    assert "def hardsigmoid(" in source
    assert _script(place).returncode == 1
    subprocess.run([*command, "--resume", str(folder), "--cases", "12"], check=True, capture_output=True)
    assert (place / "repro.py").read_text() == source
    assert "def hardsigmoid(" in (folder / "report.html").read_text()


def test_what_was_raised_for_several_reasons_has_a_folder_for_each(tmp_path: Path) -> None:
    """Two exceptions of one adapter are two folders; messages that differ in numbers alone are one."""
    case = Case(Network((2,), (), MSELoss()), 0)
    folder = ReportFolder(tmp_path)
    for message in ("no kernel", "no memory: 12 bytes", "no memory: 7 bytes"):
        folder.add(Finding("torch", "float64", "", "", "", "error", 0.0, (0, 0), (), 0.0, 0.0, 0.0, Diagnosis("raised", message), case))
    said = [json.loads(file.read_text())["diagnosis"]["sentence"] for file in tmp_path.glob("error-torch-float64-*/finding.json")]
    assert sorted(said) == ["no kernel", "no memory: 7 bytes"]
    for reason in ("the tail is lost", "the squares overflow"):
        folder.add(Finding("torch", "float64", "GELU", "", "dx", "imprecise", 2.0, (1, 1), (0,), 0.0, 1.0, 0.5, Diagnosis("lost", ""),
                           case, known=reason))
    kept = [json.loads(file.read_text())["known"] for file in tmp_path.glob("imprecise-torch-GELU-dx-float64-*-known/finding.json")]
    assert sorted(kept) == ["the squares overflow", "the tail is lost"]
