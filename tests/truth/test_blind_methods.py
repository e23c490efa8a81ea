"""Methods that cannot see abstain: right gradients are not accused, and wrong ones are found all the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import backproof as bp
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backproof.report.report import Report
from backproof.report.results import Tally, unjudged
from torch.nn import functional as F  # noqa: N812

PAIR = [((3,), (3,))]


def found(candidate: Any, framework: str | None = "torch", **options: Any) -> Report:
    """Check a candidate without a layer, with few cases in float64."""
    return bp.check(candidate, None, framework=framework, **({"cases": 14, "precisions": ("float64",)} | options))


def verdicts(report: Report) -> list[tuple[str, str]]:
    return [(f.verdict, f.tensor) for f in report.findings]


class Seeded(torch.autograd.Function):
    """Cross entropy by hand, with targets that it draws from a generator of its own; its gradient times a factor."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, factor: float) -> torch.Tensor:
        target = torch.randint(0, z.shape[-1], (len(z),), generator=torch.Generator().manual_seed(0))
        ctx.save_for_backward(torch.softmax(z, -1), target)
        ctx.factor = factor
        return F.cross_entropy(z, target, reduction="none")

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> Any:  # type: ignore[override]
        p, target = ctx.saved_tensors
        return ctx.factor * (p - F.one_hot(target, p.shape[-1])) * dy[:, None], None


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_targets_drawn_inside_are_those_of_the_forward(factor: float) -> None:
    """The truth replays the forward bit for bit, or is refused: a gradient times 2 is found, the right one agrees, and all is judged."""
    report = found(lambda z: Seeded.apply(z, factor), shapes=[(4,)])
    assert verdicts(report) == ([] if factor == 1 else [("wrong", "dz")]), str(report)
    assert sum(t.inconclusive for t in report.tallies.values()) < report.compared / 4


class Llama(torch.nn.Module):
    """The norm of every Llama, which computes in float32 whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.float()
        return self.weight * (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


@pytest.mark.parametrize("said_before", [False, True])
@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_a_module_that_computes_in_float32_inside_agrees(said_before: bool) -> None:
    """The complex step is refused at the cast, whether or not torch has warned of a cast before in this process."""
    if said_before:
        torch.ones(1, dtype=torch.complex128).to(torch.float32)
    report = found(Llama(), None, shapes=[(4,)])
    assert report.ok, str(report)
    assert "its forward casts to float32" in "\n".join(report.options["truth"])


@pytest.mark.parametrize(("candidate", "framework", "shapes"), [
    (lambda x: F.softplus(x) - math.log(2), "torch", [(3,)]),
    (lambda x, y: x + jnp.abs(y), "jax", [((2,), (2,))]),
    (lambda x: torch.median(x.contiguous(), -1).values, "torch", [(3,)]),
    (lambda x: torch.sort(x, -1).values, "torch", [(3,)]),
], ids=["cancels", "kink of one input", "median", "sort"])
def test_right_gradients_are_not_accused(candidate: Callable[..., Any], framework: str, shapes: Any) -> None:
    """Differences that see nothing of a tiny entry, or meet several kinks, leave an entry open."""
    report = found(candidate, framework, shapes=shapes)
    assert report.ok, str(report)
    assert sum(t.inconclusive for t in report.tallies.values()) < report.compared / 2


def test_a_quotient_of_wide_numbers_is_what_exact_arithmetic_says() -> None:
    """Of a / b torch forms (a / b) / b, which may overflow where dy a / b^2 does not: that alone is found, the truth being exact."""
    report = found(lambda a, b: a / b, "torch", shapes=PAIR)
    assert {(finding.verdict, finding.tensor) for finding in report.findings} <= {("nonfinite", "db")}
    for finding in report.findings:
        call = finding.case.call()
        a, b, dy = (Fraction(float(array[finding.index])) for array in (*call.inputs, *call.dys))
        assert abs(Fraction(finding.expected) + dy * a / b**2) <= Fraction(finding.bound)
        assert not np.isfinite(float(call.inputs[0][finding.index] / call.inputs[1][finding.index]) / float(b))


def overflowing(factor: float) -> Callable[..., Any]:
    def candidate(x: np.ndarray) -> Any:
        return np.log(np.expm1(2 * np.abs(x) + 1)), lambda dy: factor * dy * 2 * np.sign(x) / -np.expm1(-(2 * np.abs(x) + 1))

    return candidate


def test_where_the_forward_is_not_finite_there_is_no_truth() -> None:
    """Elsewhere there is one, and a mistake is found."""
    assert found(overflowing(1), "numpy", shapes=[(3,)]).ok
    assert verdicts(found(overflowing(1.01), "numpy", shapes=[(3,)])) == [("wrong", "dx")]


def of_the_batch(z: torch.Tensor) -> torch.Tensor:
    """A contrastive loss, which a single example has none of."""
    n = len(z) // 2 * 2
    h = F.normalize(z[:n], dim=1)
    return F.cross_entropy(h @ h.T / 0.5 - torch.eye(n, dtype=z.dtype) * 1e9, torch.arange(n) ^ 1)


def test_a_loss_of_the_whole_batch_is_not_taken_apart() -> None:
    """What is no number without the other examples depends on them, and is not run under vmap."""
    report = found(of_the_batch, shapes=[(3,)])
    assert report.ok, str(report)
    assert "mode vmap" not in report.coverage["conditions"]


def test_labels_in_a_closure_fit_one_batch() -> None:
    """`batch` is the number of examples of every call."""
    label = torch.tensor([0, 2, 1, 3])
    assert found(lambda z: F.cross_entropy(z, label), shapes=[(5,)], batch=4, cases=6).ok
    with pytest.raises(ValueError, match="batch: got 0, expected at least one example"):
        found(of_the_batch, batch=0)


class Hand(torch.autograd.Function):
    """Cross entropy by hand, whose gradient may lack the mean over the batch."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, target: torch.Tensor, mean: int) -> torch.Tensor:
        ctx.save_for_backward(torch.softmax(z, -1), target)
        ctx.count = len(z) if mean else 1
        return F.cross_entropy(z, target)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> Any:  # type: ignore[override]
        p, target = ctx.saved_tensors
        return (p - F.one_hot(target, p.shape[-1])) * dy / ctx.count, None, None


@pytest.mark.parametrize("targets", [((), 5), lambda batch, rng: rng.integers(5, size=batch)], ids=["kind", "function"])
def test_targets_are_drawn_and_handed_over(targets: Any) -> None:
    """By their shape and kind, or by a function; they have no gradient."""
    report = found(lambda z, t: Hand.apply(z, t, 1), shapes=[(5,)], targets=targets, cases=8)
    assert report.ok, str(report)
    assert {tensor for *_, tensor in report.tallies} == {"output", "dz"}
    assert verdicts(found(lambda z, t: Hand.apply(z, t, 0), shapes=[(5,)], targets=targets, cases=8)) == [("wrong", "dz")]


@pytest.mark.parametrize(("targets", "message"), [
    (((), "colours"), "unknown kind: got 'colours', expected the number of classes or one of real, binary"),
    (3, "targets: got 3, expected a shape and a kind, or a function"),
    (((), 0), "targets: got 0 classes"),
])
def test_targets_that_say_nothing(targets: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        found(F.cross_entropy, shapes=[(5,)], targets=targets)


def test_a_tensor_of_which_nothing_was_judged_is_said_first() -> None:
    """The verdict is inconclusive, and no such report is OK."""
    key = ("torch:f", "float64", "OwnForward", "dx")
    tallies = {key: Tally(100, inconclusive=95), (*key[:3], "output"): Tally(100)}
    report = Report(tallies=tallies, unjudged=unjudged(tallies), cases=1)
    assert (report.verdict, report.ok) == ("inconclusive", False)
    assert str(report).startswith("Not judged: dx of OwnForward on torch:f in float64: 5 of 100 entries")
    assert not unjudged({key: Tally(100, inconclusive=85)})


def test_a_check_of_which_nothing_could_be_judged_raises() -> None:
    """A forward that gives others every time has no derivative that anyone could know."""

    class Random(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x + torch.full_like(x, torch.nan)

        @staticmethod
        def backward(ctx: Any, dy: torch.Tensor) -> Any:  # type: ignore[override]
            return 2 * dy

    with pytest.raises(bp.GradientMismatch, match="Not judged: dx"):
        bp.assert_gradients(Random.apply, None, framework="torch", shapes=[(3,)], cases=4, precisions=("float64",))
