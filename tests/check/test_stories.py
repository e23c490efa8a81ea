"""What a check says of a finding was tried: in other draws, at other batch sizes, and a second time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.report.finding import Finding

SHAPES = [(3,), (2, 3), (4,)]


def found(candidate: Callable[..., Any], like: Any, **options: Any) -> list[Finding]:
    settings: dict[str, Any] = {"framework": "numpy", "cases": 40, **options}
    return list(bp.check(candidate, like, **settings).findings)


def tanh(factor: Callable[[np.ndarray], Any]) -> Callable[..., Any]:
    """Return a tanh whose gradient is multiplied by a factor that is found at each call."""

    def candidate(x: np.ndarray) -> Any:
        by = factor(x)
        return np.tanh(x), lambda dy: ((dy * (1 - np.tanh(x) ** 2) * by).astype(x.dtype), {})

    return candidate


def linear(factor: Callable[[np.ndarray], float]) -> Callable[..., Any]:
    """Return a linear layer without bias whose weight gradient is multiplied by a factor."""

    def candidate(x: np.ndarray, weight: np.ndarray) -> Any:
        return x @ weight.T, lambda dy: (dy @ weight, {"weight": (dy.T @ x * factor(x)).astype(x.dtype)})

    return candidate


# Of the batch size.


@pytest.mark.parametrize(("factor", "code"), [(lambda x: 2, "doubled"), (lambda x: 0.5, "halved"), (len, "times-batch"),
                                              (lambda x: 1 / len(x), "over-batch")])
def test_m_is_said_where_it_is_m_at_two_batch_sizes(factor: Callable[[np.ndarray], float], code: str) -> None:
    """A forgotten 2 is no m, also where the first batch is of two; m is."""
    (finding,) = found(linear(factor), bp.Linear(4, bias=False), shapes=[(3,), (5,)])
    assert (finding.tensor, finding.diagnosis.code) == ("dweight", code)


def test_a_square_root_of_the_width_is_no_batch_size() -> None:
    """A factor of sqrt(4) in one place, a batch of two in another."""
    (finding,) = found(linear(lambda x: np.sqrt(x.shape[-1])), bp.Linear(4, bias=False), shapes=[(4,)])
    assert finding.diagnosis.code == "doubled"


# Of the condition.


def test_what_depends_on_a_value_alone_needs_no_batch_and_no_size() -> None:
    """A gradient that is wrong where some entry is large shows in large tensors more often, which is not what it needs."""
    wrong = lambda x: np.where(x > 1.5, 2.0, 1.0)  # noqa: E731
    for finding in found(tanh(wrong), bp.Tanh()):
        assert "batch" not in finding.diagnosis.condition
        assert "axis" not in finding.diagnosis.condition

    def softmax(x: np.ndarray) -> Any:
        y, backward = bp.Softmax().forward({}, x)
        return y, lambda dy: ((backward(dy)[0] * np.where(x > 1.8, 2, 1)).astype(x.dtype), {})

    for finding in found(softmax, bp.Softmax()):
        assert finding.diagnosis.condition == ""


def test_a_batch_of_more_than_one_is_said_where_it_is_needed() -> None:
    """A gradient that is wrong in every batch but of one example."""
    (finding,) = found(tanh(lambda x: 1.0 if len(x) == 1 else 1.5), bp.Tanh(), shapes=SHAPES)
    assert finding.diagnosis.condition == "only for a batch of more than one example"


def test_a_size_is_said_where_it_decides() -> None:
    """A gradient that is wrong for a last axis of four."""
    (finding,) = found(tanh(lambda x: 1.5 if x.shape[-1] == 4 else 1.0), bp.Tanh(), shapes=[(3,), (4,), (5,)])
    assert finding.diagnosis.condition == "only for a last axis of 4, not of 3, 5"


# Of what does not show again.


def test_a_dropout_left_on_is_nondeterministic_and_nothing_else() -> None:
    """Output and gradient are others at every call: one finding, without a condition."""
    rng = np.random.default_rng(0)

    def candidate(x: np.ndarray) -> Any:
        kept = rng.random(x.shape) > 0.1
        return (np.tanh(x) * kept).astype(x.dtype), lambda dy: ((dy * (1 - np.tanh(x) ** 2) * kept).astype(x.dtype), {})

    (finding,) = found(candidate, bp.Tanh())
    assert (finding.verdict, finding.tensor, finding.diagnosis.code) == ("nondeterministic", "output", "nondeterministic")
    assert finding.diagnosis.condition == ""


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_what_is_wrong_one_time_in_ten_has_one_story(seed: int) -> None:
    """Whatever was met first, what is found is that it changes."""
    rng = np.random.default_rng(seed)
    verdicts = {f.verdict for f in found(tanh(lambda x: 1.5 if rng.random() < 0.1 else 1.0), bp.Tanh(), seed=seed)}
    assert verdicts == {"nondeterministic"}


def test_wrong_on_the_first_call_only_is_state() -> None:
    """The first call alone gives another gradient."""
    calls = iter([1.5])
    (finding,) = found(tanh(lambda x: next(calls, 1.0)), bp.Tanh())
    assert finding.diagnosis.code == "state"
    assert finding.diagnosis.condition == ""


def test_a_gradient_that_is_accumulated_across_calls_is_said_to_be() -> None:
    """A buffer that nobody sets to zero; its sign is not what is wrong."""
    kept: dict[Any, Any] = {}

    def candidate(x: np.ndarray) -> Any:
        def backward(dy: np.ndarray) -> Any:
            kept[x.shape] = kept.get(x.shape, 0) + dy * (1 - np.tanh(x) ** 2)
            return kept[x.shape].astype(x.dtype), {}

        return np.tanh(x), backward

    (finding,) = found(candidate, bp.Tanh(), precisions="float64")
    assert finding.diagnosis.code == "accumulated"


def test_what_repeats_is_not_nondeterministic() -> None:
    """A wrong gradient that is the same each time keeps its name."""
    (finding,) = found(tanh(lambda x: 1.5), bp.Tanh())
    assert (finding.verdict, finding.diagnosis.code) == ("wrong", "factor")


# Of one cause.


def test_one_option_is_one_finding() -> None:
    """Another eps makes output, dx and dweight wrong, which is said once."""
    one = bp.LayerNorm(eps=1e-6)

    def candidate(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Any:
        return one.forward({"weight": weight, "bias": bias}, x)

    findings = found(candidate, bp.LayerNorm(), precisions="float64")
    assert [f.tensor for f in findings if f.diagnosis.code == "other-option"] == ["output"]
    (said,) = (f.diagnosis.sentence for f in findings if f.diagnosis.code == "other-option")
    assert said == "output is that of eps=1e-06, where eps is 1e-05; so are dx and dweight"
