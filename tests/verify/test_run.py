"""The whole run on adapters with something wrong: it finds it, names it, counts it, goes on, and tests itself."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.adapters import load
from backproof.judge.certificate import Certificate
from backproof.reference.case import Case
from backproof.reference.containers import Parallel
from backproof.reference.heads import CrossEntropyLoss, MSELoss
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.trace import LayerTrace, Trace
from backproof.report.report import Report
from backproof.report.results import SelfTest, Tally
from backproof.verify import planting as plant
from backproof.verify.planting import ANYWHERE, KINDS, OF_A_FAMILY
from backproof.verify.run import Run, verify

Change = Callable[[Trace], Trace]
BOTH = ("float64", "float32")
HERE = Network((5,), (Linear(4), bp.Tanh(), Linear(3)), CrossEntropyLoss())


class Altered:
    """A real adapter whose traces are changed on the way out."""

    def __init__(self, change: Change, name: str = "mine", base: str = "torch") -> None:
        self.change, self.name, self.base = change, name, load(base)
        self.runs = 0

    def run(self, case: Case) -> Trace:
        self.runs += 1
        return self.change(self.base.run(case))


def each_step(change: Callable[[LayerTrace], LayerTrace]) -> Change:
    return lambda trace: replace(trace, layers=tuple(change(step) for step in trace.layers))


def broken_linear(step: LayerTrace) -> LayerTrace:
    """The gradient of a Linear's weight with one entry, the last of its first row, off by 3."""
    if not isinstance(step.layer, Linear):
        return step
    dweight = step.d_params["weight"].copy()
    dweight[0, -1] += 3
    return replace(step, d_params={**step.d_params, "weight": dweight})


def run_of(adapters: Any, cases: list[Case], precisions: tuple[str, ...] = BOTH, *, shrink: bool = True) -> Report:
    run = Run(adapters, len(cases), 0, precisions, None, None)
    for case in cases:
        run.examine(case)
    if shrink:
        run.shrink()
    return run.report()


@pytest.mark.parametrize("name", ["torch", "jax:jit"])
def test_a_correct_framework_is_ok_and_every_planted_mistake_is_caught(name: str) -> None:
    """A run over all regimes finds nothing unexplained, counts what it compared, and catches and blames all it planted."""
    report = verify(adapters=(name,), cases=320 if name == "torch" else 32, seed=2, reports=None)
    assert report.findings == ()
    assert report.ok
    assert report.cases == (320 if name == "torch" else 32)
    assert report.compared == sum(tally.compared for tally in report.tallies.values()) > 1000
    assert 0 < report.margin <= 1
    assert len(report.coverage["regimes"]) == 8
    test = report.self_test
    assert test.planted == test.caught == test.blamed == sum(test.by_mistake.values()) > 10
    assert test.missed == []
    if name == "torch":
        assert set(ANYWHERE) <= set(test.by_mistake) <= set(KINDS)
        assert len(set(test.by_mistake) & set(OF_A_FAMILY)) > 60  # whatever belongs to the layers drawn
        assert {adapter for adapter, _, _, _ in report.tallies} == {"torch"}
        assert {precision for _, precision, _, _ in report.tallies} == set(BOTH)


def test_a_broken_backward_is_found_and_named() -> None:
    """One wrong entry in the gradient of Linear's weight: layer, path, tensor, index, numbers, cause, case and count are said."""
    cases = [Case(HERE, seed, batch=6) for seed in range(3)]
    report = run_of([Altered(each_step(broken_linear))], cases)
    assert not report.ok
    assert report.verdict == "wrong"
    (finding,) = report.findings
    assert (finding.adapter, finding.layer, finding.tensor, finding.verdict) == ("mine", "Linear", "dweight", "wrong")
    assert finding.path == "layers.0"
    assert finding.count == 3 * 2 * 2  # cases, precisions, Linears
    assert finding.entries[0] == 1
    assert finding.index[0] == 0
    assert finding.step is not None
    assert finding.index[1] == finding.step.inputs[0].shape[1] - 1
    assert abs(finding.actual - finding.expected - 3) <= finding.bound
    assert finding.excess > 1e3
    assert finding.case is not None
    assert len(finding.case.network.layers) == 1
    assert finding.known == ""
    assert not finding.suspects_reference


def test_a_broken_backward_is_found_by_verify() -> None:
    """`verify` over random networks finds a mistake in one layer class alone."""
    report = verify(adapters=[Altered(each_step(broken_linear))], cases=16, layers=["Linear", "ReLU"], reports=None)
    assert not report.ok
    assert {(finding.layer, finding.tensor) for finding in report.findings} == {("Linear", "dweight")}
    assert report.cases == 16


def test_a_correct_tensor_beside_a_broken_one_still_counts() -> None:
    """What a broken adapter has right is compared and counted as ever."""
    report = run_of([Altered(each_step(broken_linear))], [Case(HERE, 0)], ("float64",))
    tally = report.tallies["mine", "float64", "Linear", "dweight"]
    assert (tally.compared, tally.outside) == (4 * 5 + 3 * 4, 2)
    right = report.tallies["mine", "float64", "Tanh", "dx"]
    assert (right.compared, right.outside) == (4 * 4, 0)
    assert report.skipped["end to end: a layer of the network differs locally"] == 1


class Drifting:
    """Torch with an output that is off by one unit in the last place whenever a case is run again: within every bound."""

    name = "drifting"

    def __init__(self) -> None:
        self.seen: set[Case] = set()

    def run(self, case: Case) -> Trace:
        trace = load("torch").run(case)
        first, *rest = trace.layers
        y = first.output.copy()
        if case in self.seen:
            y[0, -1] = np.nextafter(y[0, -1], y.dtype.type(0))
        self.seen.add(case)
        return replace(trace, layers=(replace(first, output=y), *rest))


def test_an_adapter_that_differs_from_run_to_run_is_nondeterministic() -> None:
    """Two runs that differ in one bit are a finding with the tensor and the entry, though both are within their bounds."""
    report = run_of([Drifting()], [Case(HERE, 0)])
    assert report.verdict == "nondeterministic"
    assert not report.ok
    (finding,) = report.findings
    assert (finding.layer, finding.path, finding.tensor, finding.verdict) == ("Linear", "layers.0", "output", "nondeterministic")
    assert finding.index == (0, 3)
    assert finding.entries == (1, 4 * 4)
    assert finding.diagnosis.sentence == "two runs of one case differ in 1 entries of output"
    assert finding.actual != finding.expected


def test_nondeterminism_is_found_by_verify() -> None:
    """A sample of the cases of every run is run twice."""
    report = verify(adapters=[Drifting()], cases=16, layers=["Linear", "Tanh"], reports=None)
    assert {finding.verdict for finding in report.findings} == {"nondeterministic"}


def raising(error: BaseException, when: Callable[[Trace], bool]) -> Change:
    def change(trace: Trace) -> Trace:
        if when(trace):
            raise error
        return trace

    return change


def test_an_adapter_that_raises_is_an_error_and_the_run_goes_on() -> None:
    """An exception becomes a finding with its type and first line, counted and shrunk; the other cases are compared."""
    change = raising(RuntimeError("no kernel for this\nsecond line"), lambda trace: trace.layers[0].output.shape[0] > 4)
    report = run_of([Altered(change)], [Case(HERE, 0, batch=7), Case(HERE, 1, batch=7), Case(HERE, 2, batch=3)])
    assert report.cases == 3
    assert report.compared > 0
    assert report.verdict == "error"
    assert not report.ok
    (finding,) = report.findings
    assert (finding.adapter, finding.verdict, finding.count) == ("mine", "error", 4)
    assert finding.diagnosis.sentence == "RuntimeError: no kernel for this"
    assert finding.case is not None
    assert finding.case.batch in {5, 6}
    assert len(finding.case.network.layers) <= 1


def test_different_exceptions_are_different_findings() -> None:
    """Each message is a finding of its own; those that differ in numbers alone are one, on the case it was first seen on."""
    def change(trace: Trace) -> Trace:
        batch = trace.layers[0].output.shape[0]
        raise ValueError(f"batch of {batch}" if batch > 2 else "a small batch")

    report = run_of([Altered(change)], [Case(HERE, n, batch=batch) for n, batch in enumerate((7, 3, 2))], ("float64",), shrink=False)
    assert {finding.diagnosis.sentence: finding.count for finding in report.findings} == {
        "ValueError: batch of 7": 2, "ValueError: a small batch": 1}


def test_an_exception_without_a_message_is_reported() -> None:
    """An exception that says nothing is reported by its type."""
    report = run_of([Altered(raising(KeyError(), lambda _: True))], [Case(HERE, 0)])
    assert report.findings[0].diagnosis.sentence.startswith("KeyError")


def malformed(**changes: Any) -> Change:
    """Return a change that puts something malformed into the first layer's step."""
    return lambda trace: replace(trace, layers=(replace(trace.layers[0], **changes), *trace.layers[1:]))


MALFORMED: dict[str, Change] = {
    "no dx": malformed(d_inputs=(None,)),
    "no inputs' gradients": malformed(d_inputs=()),
    "two inputs' gradients": malformed(d_inputs=(np.zeros((4, 5)), np.zeros((4, 5)))),
    "no output": malformed(output=None),
    "a list": malformed(output=[[0.0] * 4] * 4),
    "no parameter gradients": malformed(d_params={}),
    "a gradient of nothing": malformed(d_params={"weight": None, "bias": None}),
    "no upstream gradient": malformed(d_output=None),
    "an upstream gradient of another shape": malformed(d_output=np.zeros((4, 9))),
    "an input of another shape": malformed(inputs=(np.zeros((4, 9)),)),
    "no parameters": malformed(params={}),
    "a layer missing": lambda trace: replace(trace, layers=trace.layers[1:]),
    "the head missing": lambda trace: replace(trace, layers=trace.layers[:-1]),
    "no layers": lambda trace: replace(trace, layers=()),
    "None": lambda trace: None,  # type: ignore[dict-item,return-value]
}


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_trace_is_an_error_and_the_run_goes_on(what: str, precision: str) -> None:
    """A trace that lacks something or holds another shape is a finding of `error`, not a crash of the run and not a pass."""
    adapters = [Altered(MALFORMED[what]), "torch"]
    report = run_of(adapters, [Case(HERE, 0)], (precision,))
    assert report.cases == 1
    assert {(finding.adapter, finding.verdict) for finding in report.findings} == {("mine", "error")}
    assert all(finding.diagnosis.sentence for finding in report.findings)
    assert not report.ok
    assert any(adapter == "torch" for adapter, _, _, _ in report.tallies)


def swapped_upstream(trace: Trace) -> Trace:
    """Every gradient as if the upstream gradient were 1, and recorded so: right layer by layer."""
    scale = trace.layers[-1].d_output.dtype.type(1) / trace.layers[-1].d_output

    def change(step: LayerTrace) -> LayerTrace:
        return replace(step, d_inputs=tuple(d * scale for d in step.d_inputs), d_output=step.d_output * scale,
                       d_params={name: d * scale for name, d in step.d_params.items()})

    return each_step(change)(trace)


def test_wrong_wiring_is_found_end_to_end() -> None:
    """Layers that are right by themselves but were handed a wrong upstream gradient are found in float64, and called wrong."""
    case = next(c for c in (Case(HERE, seed) for seed in range(50)) if float(c.values().upstream) not in {1.0, 0.0})
    report = run_of([Altered(swapped_upstream)], [case], ("float64",))
    assert not report.ok
    assert {finding.verdict for finding in report.findings} == {"wrong"}
    assert {finding.tensor for finding in report.findings} == {"end-to-end dx", "end-to-end dweight", "end-to-end dbias"}


def test_frameworks_that_agree_against_the_reference_make_it_the_suspect() -> None:
    """Where two frameworks have the same numbers and the reference others, the finding says so."""
    change = each_step(broken_linear)
    votes = {
        (("torch:a", "torch"), ("jax:a", "jax:jit")): {"torch:a": True, "jax:a": True},
        (("torch:a", "torch"), ("torch:b", "torch:func")): {"torch:a": False, "torch:b": False},  # one framework has one vote
    }
    for adapters, suspects in votes.items():
        report = run_of([Altered(change, name, base) for name, base in adapters], [Case(HERE, 0)], shrink=False)
        assert {finding.adapter: finding.suspects_reference for finding in report.findings} == suspects
    alone = run_of([Altered(change, "torch:a"), "jax:jit"], [Case(HERE, 0)])
    assert [(finding.adapter, finding.suspects_reference) for finding in alone.findings] == [("torch:a", False)]


def test_a_convention_is_ok() -> None:
    """Jax's slope of leaky_relu at 0 is counted and shown as a convention, and the run is ok."""
    report = run_of(["jax:jit"], [Case(Network((3,), (bp.LeakyReLU(0.25),), MSELoss()), 1, "zeros")])
    assert report.findings == ()
    assert [(finding.layer, finding.tensor, finding.count) for finding in report.conventions] == [("LeakyReLU", "dx", 2)]
    assert "at input 0" in report.conventions[0].diagnosis.sentence
    assert report.verdict == "convention"
    assert report.ok


def test_nothing_compared_is_never_ok() -> None:
    """A run in which every case raised compared nothing, and is an error."""
    report = run_of([Altered(raising(OSError("gone"), lambda _: True))], [Case(HERE, 0)])
    assert report.compared == 0
    assert report.verdict == "error"
    assert not report.ok
    assert Report().verdict == "error"
    assert not Report().ok
    out_of_time = verify(adapters=("torch",), cases=8, minutes=1e-9, reports=None)
    assert (out_of_time.cases, out_of_time.verdict, out_of_time.ok) == (0, "error", False)


def test_a_report_of_nothing_but_inconclusive_entries_says_so() -> None:
    """Where nothing could be said the verdict is `inconclusive`, and one entry that agreed makes it `agrees`."""
    key = ("torch", "float64", "Linear", "dx")
    assert Report(tallies={key: Tally(compared=3, inconclusive=3)}).verdict == "inconclusive"
    assert Report(tallies={key: Tally(compared=3, inconclusive=2)}).verdict == "agrees"


@pytest.mark.parametrize("test", [SelfTest(planted=3, caught=2, blamed=2), SelfTest(planted=3, caught=3, blamed=2)])
def test_a_mistake_that_was_missed_or_blamed_elsewhere_fails_the_run(test: SelfTest) -> None:
    """Fewer caught or rightly blamed than planted is a failure, whatever else agreed."""
    tallies = {("torch", "float64", "Linear", "dx"): Tally(compared=3)}
    assert Report(tallies=tallies, self_test=SelfTest(planted=3, caught=3, blamed=3)).ok
    assert not Report(tallies=tallies, self_test=test).ok


def test_a_checker_that_cannot_fail_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With certificates that never fail the self-test catches nothing, says what was missed, and the run is not ok."""
    monkeypatch.setattr(plant, "certify_step", lambda *arguments, **options: [])
    report = run_of(["torch"], [Case(HERE, 0)])
    assert report.findings == ()
    assert report.self_test.planted > 0
    assert (report.self_test.caught, report.self_test.blamed) == (0, 0)
    assert len(report.self_test.missed) == report.self_test.planted
    assert "blamed nothing" in report.self_test.missed[0]
    assert "torch, seed 0" in report.self_test.missed[0]
    assert not report.ok


def test_a_checker_that_blames_another_layer_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake that is caught and blamed on the wrong place counts as caught and not as blamed."""
    certify = plant.certify_step

    def elsewhere(*arguments: Any, **options: Any) -> list[Certificate]:
        return [replace(certificate, path="layers.9") for certificate in certify(*arguments, **options)]

    monkeypatch.setattr(plant, "certify_step", elsewhere)
    report = run_of(["torch"], [Case(HERE, 0)])
    assert report.self_test.caught == report.self_test.planted > 0
    assert report.self_test.blamed == 0
    assert not report.ok


def test_an_interrupted_run_reports_what_was_done() -> None:
    """Ctrl-C in the middle of a run gives a report of the cases before it, marked as interrupted."""
    adapter = Altered(lambda trace: trace)

    def interrupt(trace: Trace) -> Trace:
        if adapter.runs > 20:
            raise KeyboardInterrupt
        return trace

    adapter.change = interrupt
    report = verify(adapters=[adapter], cases=64, layers=["Linear", "Tanh"], precisions=("float64",), reports=None)
    assert report.interrupted
    assert 0 < report.cases < 64
    assert report.compared > 0


def test_the_same_seed_gives_the_same_report() -> None:
    """Two runs of one seed count the same and find the same; progress is told of as it goes."""
    steps: list[int] = []
    options: dict[str, Any] = {"cases": 16, "seed": 5, "reports": None}
    adapter = Altered(each_step(broken_linear))
    first = verify(adapters=[adapter], progress=lambda run: steps.append(run.ledger.cases), **options)
    second = verify(adapters=[adapter], **options)
    kept = [{key: value for key, value in report.describe().items() if key != "seconds"} for report in (first, second)]
    assert kept[0] == kept[1]
    assert steps == sorted(set(steps))
    assert steps[-1] == 16


def test_several_jobs_give_the_same_report() -> None:
    """The report of a seed does not hang on the number of processes."""
    one, two = (verify(adapters=("torch",), cases=12, seed=5, reports=None, jobs=jobs).describe() for jobs in (1, 2))
    for report in (one, two):
        report.pop("seconds")
        report.pop("environment")
        report["options"].pop("jobs")
    assert one == two
    assert one["compared"] > 0


def test_reports_none_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `reports=None` no file appears."""
    monkeypatch.chdir(tmp_path)
    verify(adapters=[Altered(each_step(broken_linear))], cases=4, layers=["Linear"], reports=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("options", "message"), [
    ({"cases": 0}, "^verify needs at least one case: got 0$"),
    ({"cases": -3}, "^verify needs at least one case: got -3$"),
    ({"adapters": ()}, "^verify needs at least one adapter: got none$"),
    ({"precisions": ()}, "^verify needs at least one precision: got none$"),
    ({"adapters": ("tensorflow",)}, "^unknown adapter: got 'tensorflow', expected one of jax, jax:jit, torch, "),
    ({"precisions": ("float12",)}, "^unknown precision: got 'float12', expected one of float64, float32, "),
    ({"layers": ["Konvolution"]}, "^unknown layer: got Konvolution, expected one of AdaptiveAvgPool2d, Add, "),
    ({"layers": []}, "layer"),
    ({"jobs": 0}, "^verify needs at least one job: got 0$"),
    ({"jobs": 2, "adapters": [Altered(lambda trace: trace)]}, "^several jobs need adapters by name"),
    ({"seed": -1}, "seed.*-1"),
    ({"minutes": -1.0}, "minutes.*-1"),
])
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    """Each argument that makes no sense is a ValueError that says what was given and what is expected."""
    with pytest.raises(ValueError, match=message):
        verify(**({"adapters": ("torch",), "cases": 4, "reports": None} | options))


@pytest.mark.parametrize("change", [
    lambda t: replace(t, layers=(replace(t.layers[0], inputs=(t.layers[0].inputs[0] * 2,), output=t.layers[0].output), *t.layers[1:])),
    swapped_upstream,
], ids=["input", "upstream"])
def test_wrong_wiring_is_found_in_float32_too(change: Change) -> None:
    """Numbers that are not the case's own or not the neighbour's are a finding in a precision without an end-to-end bound."""
    case = next(c for c in (Case(HERE, seed) for seed in range(50)) if float(c.values().upstream) not in {1.0, 0.0})
    report = run_of([Altered(change)], [case], ("float32",))
    assert not report.ok
    assert {finding.verdict for finding in report.findings} <= {"error", "wrong"}


TOKENS = Network((4,), (Parallel((bp.Embedding(5, 3), bp.Embedding(5, 3))), bp.Add(), bp.Flatten(), Linear(2)), MSELoss())


@pytest.mark.parametrize("name", ["torch", "jax:jit"])
def test_indices_may_be_used_twice(name: str) -> None:
    """Whole numbers that go into two layers are handed on as they are; nothing of that has a gradient, or is a finding."""
    report = run_of([name], [Case(TOKENS, 1)])
    assert report.findings == ()
    assert report.ok
    assert report.self_test.planted == report.self_test.caught > 0


def test_indices_that_arrive_as_others_are_found() -> None:
    """A layer that was handed other indices than those it shares is a wrong connection, though it is right on those."""
    def change(trace: Trace) -> Trace:
        fork, *rest = trace.layers
        other = (fork.outputs[0], (fork.outputs[1] + 1) % 5)
        return replace(trace, layers=(replace(fork, output=other), *rest))

    report = run_of([Altered(change)], [Case(TOKENS, 1)])
    assert {finding.diagnosis.sentence for finding in report.findings} == {
        "what came of output_1 of x.fork is another number: a wrong connection"}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_self_test_runs_in_coarse_precisions_too(precision: str) -> None:
    """A run in half precision plants mistakes and catches them: no run passes on a self-test of nothing."""
    report = run_of(["torch"], [Case(HERE, 0)], (precision,))
    assert report.self_test.planted > 0
    assert report.ok


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_discards_still_ends_the_run() -> None:
    """Ctrl-C during a callback of the garbage collector, where Python drops the exception, ends the run after that part."""
    adapter = Altered(lambda trace: trace)

    def dropped(phase: str, info: dict[str, int]) -> None:
        gc.callbacks.remove(dropped)
        signal.raise_signal(signal.SIGINT)

    def collect(trace: Trace) -> Trace:
        if adapter.runs == 20:
            gc.callbacks.append(dropped)
            gc.collect()
        return trace

    adapter.change = collect
    report = verify(adapters=[adapter], cases=64, layers=["Linear", "Tanh"], precisions=("float64",), reports=None)
    assert report.interrupted
    assert 0 < report.cases < 64
