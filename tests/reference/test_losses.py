"""What is special of single losses: weights, masks, margins, norms and alignments, against loops written from their definitions."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from backproof.judge.mistakes.losses import MISTAKES
from backproof.judge.rules import expected, expected_plain
from backproof.reference import heads as H  # noqa: N812
from backproof.reference.ctc import CTCLoss
from backproof.reference.functions import softplus
from backproof.reference.heads import (
    BCEWithLogitsLoss,
    CosineEmbeddingLoss,
    CrossEntropyLoss,
    Head,
    HingeLoss,
    KLDivLoss,
    NLLLoss,
)
from backproof.reference.layer import build, describe
from backproof.reference.rounding import PRECISIONS, Arithmetic, Rounded
from backproof.reference.trace import LayerTrace

RNG = np.random.default_rng(3)
Z = 2 * RNG.standard_normal((4, 3))
SIGNS = np.array([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0], [1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]])
ROWS = np.array([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
CLASSES = np.array([2, 0, 1, 1])
FRAMES = RNG.standard_normal((4, 5, 3))
LABELS = np.array([[1, 1], [2, 1], [2, -1], [-1, -1]])
PAIRS = RNG.standard_normal((4, 2, 3))
FIRST = SIGNS[:, 0]
W = (0.5, 2.0, 0.3)


def settings() -> Iterator[tuple[Head, np.ndarray, np.ndarray]]:
    """Yield heads with every option, each with z and a target that bring it out."""
    for reduction in ("mean", "sum", "none"):
        of: dict[str, Any] = {"reduction": reduction}
        yield from ((Head(output, "cosine", reduction), Z, Z[::-1]) for output in ("linear", "tanh"))
        yield from ((Head("linear", loss, reduction), Z, Z[::-1]) for loss in ("mse", "smooth_l1", "huber"))
        yield from ((Head(output, loss, reduction), Z, ROWS) for output, loss in (("softmax", "kl"), ("log_softmax", "kl_div")))
        yield Head("log_softmax", "nll", reduction), Z, CLASSES
        yield from ((head, Z, Z[::-1]) for head in (H.L1Loss(**of), H.HuberLoss(**of, delta=0.3), H.SmoothL1Loss(**of, beta=0.3)))
        yield from ((head, Z, SIGNS) for head in (HingeLoss(**of), HingeLoss(**of, margin=0.25), H.SoftMarginLoss(**of)))
        yield BCEWithLogitsLoss(**of, pos_weight=W), Z, ROWS
        yield from ((KLDivLoss(**of, log_target=logs), Z, np.log(ROWS + 1) if logs else ROWS) for logs in (False, True))
        for options in ({}, {"ignore_index": 1}, {"weight": W}, {"weight": W, "ignore_index": 0}):
            yield NLLLoss(**of, **options), Z, CLASSES
            yield CrossEntropyLoss(**of, **options), Z, CLASSES
            yield CrossEntropyLoss(**of, **options, label_smoothing=0.25), Z, CLASSES
        yield from ((CosineEmbeddingLoss(**of, margin=margin), PAIRS, FIRST) for margin in (0.0, 0.25))
        yield from ((CTCLoss(**of, zero_infinity=zero), FRAMES, LABELS) for zero in (False, True))
    yield KLDivLoss(reduction="batchmean"), Z, ROWS


SETTINGS = tuple(settings())
every_setting = pytest.mark.parametrize(("head", "z", "target"), SETTINGS, ids=[f"{h}-{h.output}-{h.loss}" for h, _, _ in SETTINGS])


def balls(head: Head, z: np.ndarray, target: np.ndarray, upstream: Any = 1.0, precision: str = "float64",
          kinks: str = "own") -> tuple[Rounded, Rounded]:
    """Return loss and dz in rounded arithmetic."""
    arithmetic = Arithmetic(PRECISIONS[precision], kinks=kinks)
    loss, backward = head.forward({}, arithmetic.exact(z), target if target.dtype.kind == "i" else arithmetic.exact(target))
    return arithmetic.lift(loss), backward(arithmetic.exact(upstream))


def outside(ball: Rounded, numbers: Any) -> int:
    """Count the numbers that are further than the radius from the ball's centre."""
    assert np.isfinite(ball.radius()).all()
    return int(np.count_nonzero(~(np.abs(numbers - ball.value) <= ball.radius())))


def upstream_of(head: Head, z: np.ndarray) -> np.ndarray:
    return np.asarray(np.random.default_rng(1).standard_normal(head.loss_shape(z.shape)))


@every_setting
def test_description_builds_the_head_again(head: Head, z: np.ndarray, target: np.ndarray) -> None:
    """A head survives the way through JSON, its weights as a tuple."""
    assert build(json.loads(json.dumps(describe(head)))) == head


@every_setting
def test_balls_hold_the_plain_result_and_no_mistake(head: Head, z: np.ndarray, target: np.ndarray) -> None:
    """The plain loss and gradient lie in the ball of each precision; off by 2^-10 they leave the one of float32."""
    upstream = upstream_of(head, z)
    with np.errstate(all="raise", under="ignore"):
        plain, backward = head.forward({}, z, target)
        dz = backward(upstream)
    for precision in ("float64", "float32", "bfloat16", "float16"):
        held = [np.asarray(a).astype(PRECISIONS[precision].dtype).astype(float) for a in (z, upstream)]
        own = target if target.dtype.kind == "i" else target.astype(PRECISIONS[precision].dtype).astype(float)
        loss_ball, ball = balls(head, held[0], own, held[1], precision)
        loss_value, again = head.forward({}, held[0], own)
        assert outside(loss_ball, loss_value) == 0
        assert outside(ball, again(held[1])) == 0
    loss_ball, ball = balls(head, z, target, upstream, "float32")
    assert outside(loss_ball, plain * (1 + 2.0**-10)) > 0
    assert outside(ball, dz * (1 + 2.0**-10)) > 0


def test_every_mistake_is_caught_in_dz_alone() -> None:
    """Each mistake shows on some head, in plain and in rounded arithmetic alike, and leaves the loss as it is."""
    caught: Counter[str] = Counter()
    for head, numbers, target in SETTINGS:
        z = np.concatenate([head.margin * SIGNS[:1], numbers[1:]]) if isinstance(head, HingeLoss) else numbers
        upstream = upstream_of(head, z)
        loss, backward = head.forward({}, z, target)
        step = LayerTrace("head", head, (z, target), np.asarray(loss), (backward(upstream),), upstream, {}, {})
        right = expected(step, Arithmetic(PRECISIONS["float32"]))["dz"]
        for mistake in MISTAKES:
            assert mistake.wrong(step, "output", expected_plain) is None
            wrong = mistake.wrong(step, "dz", expected_plain)
            if wrong is None:
                continue
            ball = mistake.wrong(step, "dz", lambda s: expected(s, Arithmetic(PRECISIONS["float32"])))
            assert ball is not None
            assert outside(ball, wrong) == 0
            assert outside(right, wrong) > 0, f"{mistake.code} does not show in {head}"
            caught[mistake.code] += 1
    assert caught.keys() == {mistake.code for mistake in MISTAKES}


def log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))


@pytest.mark.parametrize("weight", [None, W])
@pytest.mark.parametrize("ignore_index", [-100, 1])
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_cross_entropy_is_its_loop(weight: tuple[float, ...] | None, ignore_index: int, smoothing: float) -> None:
    """Weights count in the sum and in the mean's divisor, ignored targets in neither, smoothing spreads over the weighted classes."""
    w, log_a, total, divisor = weight or (1.0, 1.0, 1.0), log_softmax(Z), 0.0, 0.0
    for row, label in zip(log_a, CLASSES, strict=True):
        if label != ignore_index:
            total -= (1 - smoothing) * w[label] * row[label] + smoothing / 3 * sum(w[k] * row[k] for k in range(3))
            divisor += w[label]
    options: dict[str, Any] = {"weight": weight, "ignore_index": ignore_index, "label_smoothing": smoothing}
    assert outside(balls(CrossEntropyLoss(**options), Z, CLASSES)[0], total / divisor) == 0
    assert outside(balls(CrossEntropyLoss("softmax", "cross_entropy", "sum", **options), Z, CLASSES)[0], total) == 0


def test_ignored_targets_have_no_gradient() -> None:
    """dz is exactly 0 in the rows of ignored targets, and their own loss is 0."""
    for cls in (CrossEntropyLoss, NLLLoss):
        loss, backward = cls(reduction="none", ignore_index=1).forward({}, Z, CLASSES)
        assert not loss[2:].any()
        assert not backward(np.ones(4))[2:].any()
        assert backward(np.ones(4))[:2].any()


def test_pos_weight_is_of_the_positive_term() -> None:
    """J = -p y log s(z) - (1 - y) log s(-z), summand by summand."""
    loss, _ = balls(BCEWithLogitsLoss(reduction="none", pos_weight=W), Z, ROWS)
    assert outside(loss, np.array(W) * ROWS * np.log1p(np.exp(-Z)) + (1 - ROWS) * np.log1p(np.exp(Z))) == 0
    one, two = BCEWithLogitsLoss(pos_weight=(1.0, 1.0, 1.0)), BCEWithLogitsLoss()
    assert one.forward({}, Z, ROWS)[0] == two.forward({}, Z, ROWS)[0]


def test_the_weight_of_a_small_positive_term_may_be_formed_from_one() -> None:
    """In float32 p y + 1 - y may be formed as (p - 1) y + 1, which at y = 1 loses digits of p = 0.001; at y = 0 nothing is lost."""
    head, z = BCEWithLogitsLoss(reduction="none", pos_weight=(0.001,)), np.array([[-3.0], [-30.0]])
    loss, _ = balls(head, z, np.array([[1.0], [0.0]]), np.ones((2, 1)), "float32")
    formed = (np.float32(0.001) - np.float32(1) + np.float32(1)) * np.log1p(np.exp(np.float32(3)))
    exact = np.float64(np.float32(0.001)) * np.log1p(np.exp(3))
    assert 2.0**-17 < abs(formed / exact - 1) < 2.0**-16
    assert outside(loss[:1], formed) == 0
    assert outside(loss[:1], formed * (1 + 2.0**-10)) == 1
    assert loss.radius()[1] < 1e-16


def test_a_stored_exponential_is_forgiven_where_results_are_short() -> None:
    """In bfloat16 log(1 + e^-x) may be taken of a stored e^-x; in float32, and far out, that makes no ball wider."""
    held = PRECISIONS["bfloat16"].held
    x = np.append(held(np.linspace(-9, 9, 2001)), [40.75, 50.0, 100.0])[None]
    y = -np.ones_like(x)  # the loss is log(1 + e^x)
    short, _ = balls(H.SoftMarginLoss(reduction="none"), x, y, np.ones_like(x), "bfloat16")
    stored = np.where(x > 40, x, held(np.log1p(held(np.exp(np.minimum(x, 40))))))
    arithmetic = Arithmetic(PRECISIONS["bfloat16"])
    assert outside(short, stored) == 0
    assert outside(softplus(arithmetic.exact(x)), stored) > 0
    assert (short.radius() <= 2.0**-6 * short.value).all()
    wide, _ = balls(H.SoftMarginLoss(reduction="none"), x, y, np.ones_like(x), "float32")
    assert (wide.radius() == softplus(Arithmetic(PRECISIONS["float32"]).exact(x)).radius()).all()


@pytest.mark.parametrize("margin", [0.0, 0.25, -0.5])
def test_cosine_embedding_is_its_definition(margin: float) -> None:
    """1 - c for pairs that belong together, max(0, c - margin) for the others, pair by pair."""
    pairs = np.concatenate([PAIRS, PAIRS * [[[1.0], [-1.0]]]])
    c = np.array([np.dot(u, v) / np.sqrt((np.dot(u, u) + 1e-12) * (np.dot(v, v) + 1e-12)) for u, v in pairs])
    for sign, wanted in ((1.0, 1 - c), (-1.0, np.maximum(0, c - margin))):
        loss, _ = balls(CosineEmbeddingLoss(reduction="none", margin=margin), pairs, np.full(len(pairs), sign), np.ones(len(pairs)))
        assert outside(loss, wanted) == 0
        assert (loss.radius() < 2.0**-40).all()


def test_cosine_embedding_at_its_edges() -> None:
    """At c = margin the gradient is 0 by the reference's own choice; a zero vector has c = 0 and the gradient of its direction."""
    right_angle = np.array([[[1.0, 0.0], [0.0, 2.0]]])
    loss, backward = CosineEmbeddingLoss(reduction="sum").forward({}, right_angle, np.array([-1.0]))
    assert loss == 0
    assert not backward(1.0).any()
    loss, backward = CosineEmbeddingLoss(reduction="sum").forward({}, np.array([[[0.0, 0.0], [1.0, 0.0]]]), np.array([1.0]))
    assert loss == 1
    assert np.abs(backward(1.0) - [[[-1e6, 0], [0, 0]]]).max() < 1e-5


def test_zero_targets_contribute_nothing_to_the_divergence() -> None:
    """Where y is 0 the divergence is 0 and finite, which y log y taken literally is not."""
    with np.errstate(all="ignore"):
        assert np.isnan(ROWS * (np.log(ROWS) - log_softmax(Z))).any()
    for head, z in ((Head("softmax", "kl", "none"), Z), (KLDivLoss(reduction="none"), log_softmax(Z))):
        with np.errstate(all="raise"):
            loss, backward = head.forward({}, z, ROWS)
            assert np.isfinite(backward(np.ones(loss.shape))).all()
        kept = np.where(ROWS > 0, ROWS * (np.log(np.where(ROWS > 0, ROWS, 1)) - log_softmax(Z)), 0)
        assert outside(balls(head, z, ROWS)[0], kept if loss.shape == Z.shape else kept.sum(axis=1)) == 0
    assert Head("softmax", "kl", "none").forward({}, np.log(ROWS[2:3]), ROWS[2:3])[0] <= 2.0**-50


def test_a_certain_outcome_has_a_divergence() -> None:
    """A log-probability of 0 is a number like any other."""
    q = np.array([[0.25, 0.75]])
    loss, backward = KLDivLoss(reduction="none", log_target=True).forward({}, np.zeros((1, 2)), np.log(q))
    assert np.abs(loss - q * np.log(q)).max() < 1e-15
    assert np.abs(backward(np.ones((1, 2))) + q).max() < 1e-15


def test_cosine_of_short_vectors() -> None:
    """A norm below 1e-8 counts for 1e-8 and has no derivative; the zero vector too, and one of just that norm by own choice."""
    y = np.array([[3.0, 4.0]])
    for z in (np.array([[0.0, 0.0]]), np.array([[3e-9, -1e-9]]), np.array([[1e-8, 0.0]])):
        loss, dz = balls(Head("linear", "cosine", "sum"), z, y)
        assert outside(loss, 1 - np.sum(z * y) / 5e-8) == 0
        assert outside(dz, -y / 5e-8) == 0
        assert np.abs(Head("linear", "cosine", "sum").forward({}, z, y)[1]() + y / 5e-8).max() < 1e-6
    loss, dz = balls(Head("linear", "cosine", "sum"), y, 2 * y)
    assert outside(loss, 0.0) == 0
    assert outside(dz, np.zeros((1, 2))) == 0


def test_hinge_at_its_margin() -> None:
    """At y z = margin the gradient is 0 by the reference's own choice, and the hull holds all of [-y, 0]."""
    z, y = np.array([[0.5, -0.5, 2.0]]), np.array([[1.0, -1.0, 1.0]])
    head = HingeLoss(reduction="sum", margin=0.5)
    assert head.forward({}, z, y)[1]().tolist() == [[0.0, 0.0, 0.0]]
    _, own = balls(head, z, y)
    assert outside(own, np.array([[-1.0, 1.0, 0.0]])) == 2
    _, hull = balls(head, z, y, kinks="hull")
    assert all(outside(hull, np.array([[-s, s, 0.0]])) == 0 for s in (0.0, 0.5, 1.0))
    assert outside(hull, np.array([[0.5, -0.5, -1.0]])) == 3


def naive_ctc(z: np.ndarray, labels: list[int], blank: int) -> Any:
    """-log of the sum over all paths that become the labels when repeats, then blanks are taken out."""
    a, total = np.exp(log_softmax(z)), 0.0 * z[0, 0]
    for path in itertools.product(range(z.shape[1]), repeat=len(z)):
        if [k for k, _ in itertools.groupby(path) if k != blank] == labels:
            total = total + np.prod(a[np.arange(len(z)), list(path)])
    return -np.log(total)


@pytest.mark.parametrize(("blank", "labels"), [(0, [1, 1]), (0, [2, 1, 2]), (0, []), (0, [1]), (2, [0, 0]), (1, [0, 2])])
def test_ctc_is_the_sum_over_all_paths(blank: int, labels: list[int]) -> None:
    """Loss and gradient are those of the sum over every path, for repeated labels, no labels and any blank."""
    z, target = FRAMES[0], np.array([[*labels, -1]])
    loss, dz = balls(CTCLoss(reduction="sum", blank=blank), z[None], target)
    assert outside(loss, naive_ctc(z, labels, blank)) == 0
    for index in np.ndindex(z.shape):
        moved = z.astype(complex)
        moved[index] += 1e-150j
        assert np.abs(np.imag(naive_ctc(moved, labels, blank)) / 1e-150 - dz.value[0][index]) <= 2 * dz.radius()[0][index]


def test_ctc_mean_is_over_labels_then_examples() -> None:
    """The mean divides each loss by its number of labels, at least 1, and the sum of those by the batch."""
    each, _ = CTCLoss(reduction="none").forward({}, FRAMES, LABELS)
    assert outside(balls(CTCLoss(), FRAMES, LABELS)[0], np.mean(each / [2, 2, 1, 1])) == 0


def test_ctc_has_room_for_labels_that_fit_in_any_case() -> None:
    """Equal labels need a frame between them: of 7 frames there are 3 of them, of one frame a single one."""
    assert CTCLoss().target_shape((4, 7, 2)) == (4, 3)
    assert CTCLoss().target_shape((4, 1, 2)) == (4, 1)


def test_ctc_of_a_target_that_does_not_fit() -> None:
    """Without an alignment zero_infinity gives 0 for that example alone; otherwise it is an error that names the target."""
    target = np.array([[1, 1, 1], [1, 2, 1]])
    z = FRAMES[:2, :4]
    for targets in (target, target[::-1]):
        with pytest.raises(ValueError, match=r"CTCLoss: a target that does not fit: got \[1, 1, 1\] in 4 frames, .* zero_infinity=True"):
            CTCLoss().forward({}, z, targets)
    loss, backward = CTCLoss(reduction="none", zero_infinity=True).forward({}, z, target)
    dz = backward(np.ones(2))
    assert loss[0] == 0
    assert not dz[0].any()
    assert loss[1] > 0
    assert dz[1].any()


def test_ctc_of_a_certain_path() -> None:
    """Where every frame is sure the loss and its gradient are 0, also where states have no path, or a target has none."""
    sure = np.array([[[1000.0, 0.0], [0.0, 1000.0]]])
    for z, target in ((sure, [[1]]), (sure[:, 1:], [[1, 1]])):
        loss, backward = CTCLoss(reduction="none", zero_infinity=True).forward({}, z, np.array(target))
        assert loss.tolist() == [0]
        assert not backward(np.ones(1)).any()


def test_ctc_of_a_target_without_room_for_labels() -> None:
    """An array of no columns says that there are none."""
    loss, _ = balls(CTCLoss(reduction="none"), FRAMES[:1], np.zeros((1, 0), int), np.ones(1))
    assert outside(loss, naive_ctc(FRAMES[0], [], 0)) == 0


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.zeros((4, 1)), r"CTCLoss: targets are labels: got dtype float64, expected int64"),
        (np.ones(4, int), r"CTCLoss: wrong target shape: got \(4,\), expected \(4, labels\)"),
        (np.array([[1], [0], [1], [1]]), r"CTCLoss: no such label: got 0, expected 0 to 2 other than the blank 0, or -1"),
        (np.array([[1], [3], [1], [1]]), r"CTCLoss: no such label: got 3"),
        (np.array([[1, 1], [-1, 2], [1, 1], [1, 1]]), r"CTCLoss: labels after padding: expected -1 at the end of a target only"),
        (np.array([[1, -1, 2]] * 4), r"CTCLoss: labels after padding: expected -1 at the end of a target only"),
        (np.ones((3, 1), int), r"CTCLoss: wrong target shape: got \(3, 1\), expected \(4, labels\)"),
        (np.array([[1], [-2], [1], [1]]), r"CTCLoss: no such label: got -2, expected 0 to 2"),
    ],
)
def test_ctc_targets_that_make_no_sense(target: np.ndarray, message: str) -> None:
    """Labels that are not there are refused."""
    with pytest.raises(ValueError, match=message):
        CTCLoss().forward({}, FRAMES, target)


def test_ctc_labels_that_are_zero() -> None:
    """With another blank 0 is a label, which may stand before others and not behind padding."""
    head = CTCLoss(reduction="none", blank=2)
    assert outside(balls(head, FRAMES[:1], np.array([[0, 1]]), np.ones(1))[0], naive_ctc(FRAMES[0], [0, 1], 2)) == 0
    assert outside(balls(CTCLoss(blank=2), FRAMES[:1], np.array([[0, 1]]))[0], naive_ctc(FRAMES[0], [0, 1], 2) / 2) == 0
    with pytest.raises(ValueError, match=r"labels after padding"):
        head.forward({}, FRAMES[:1], np.array([[-1, 0]]))


def test_the_upstream_gradient_of_unreduced_losses_has_their_shape() -> None:
    """A column of upstream gradients is not broadcast over the entries of z."""
    _, backward = Head("linear", "mse", "none").forward({}, Z, Z)
    with pytest.raises(ValueError, match=r"Head: wrong shape of the upstream gradient: got \(4, 1\), expected \(4, 3\)"):
        backward(np.ones((4, 1)))


@every_setting
def test_an_empty_batch_has_no_gradient(head: Head, z: np.ndarray, target: np.ndarray) -> None:
    """A batch of 0 gives a dz of no entries, and a sum of 0 or no losses; a mean over it is refused."""
    if head.reduction in {"sum", "none"}:
        loss, backward = head.forward({}, z[:0], target[:0])
        assert loss.shape == head.loss_shape(z[:0].shape)
        assert not np.sum(loss)
        assert backward(np.ones(loss.shape)).shape == z[:0].shape
    else:
        with pytest.raises(ValueError, match=f"{type(head).__name__}: the mean over an empty batch is not defined: got z of shape"):
            head.forward({}, z[:0], target[:0])
