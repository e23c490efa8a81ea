"""Measure the heads against arbitrary precision and complex step, and write the table of docs/proof-heads.md.

As in proof.py, the loss is its definition in the balls of Arb and its gradient a difference quotient of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from backproof.reference.heads import FUSED, Head, pairs
from backproof.reference.rounding import PRECISIONS, Arithmetic
from flint import arb
from proof import BITS, BITS_PER_UNIT, WIDTH, Numbers, difference, each, excess, precise, sigmoid, size, softmax

COMMAND = "python benchmarks/proof_heads.py"
TARGET = Path(__file__).parent.parent / "docs" / "proof-heads.md"
STEP = 2.0**-500
SIZE = 3
SCALES = (1e3, 30.0, 3.0)
MODERATE = 30.0
NEAR = {"hinge", "cosine"}
"""Losses whose knee at a = 1 or parallel vectors a saturated output reaches, where a's own rounding decides: |z| up to 3."""

DEFINITIONS: dict[str, Callable[[Numbers], Numbers]] = {
    "linear": each(lambda x: x), "sigmoid": each(sigmoid), "softmax": softmax, "tanh": each(lambda x: x.tanh()),
    "log_softmax": lambda x: [a.log() for a in softmax(x)],
}


def no_log_of_zero(weight: float, x: Any) -> Any:
    """weight log x, which is 0 for a weight of 0."""
    return weight * x.log() if weight else arb(0)


def huber(e: Any) -> Any:
    return e * e / 2 if abs(e) <= 1 else abs(e) - arb("0.5")


def summed(entry: Callable[[Any, float], Any]) -> Callable[[Numbers, np.ndarray], Any]:
    """Return the loss of a row whose entries each have their own."""
    return lambda a, y: sum(entry(v, float(t)) for v, t in zip(a, y, strict=True))


def cosine(a: Numbers, y: np.ndarray) -> Any:
    target = [arb(float(t)) for t in y]
    norms = [sum(x * x for x in v).sqrt() for v in (a, target)]
    return 1 - sum(p * q for p, q in zip(a, target, strict=True)) / (norms[0] * norms[1])


LOSS: dict[str, Callable[[Numbers, np.ndarray], Any]] = {
    "mse": summed(lambda a, y: (a - y) ** 2), "half_squared_error": summed(lambda a, y: (a - y) ** 2 / 2),
    "l1": summed(lambda a, y: abs(a - y)), "huber": summed(lambda a, y: huber(a - y)), "smooth_l1": summed(lambda a, y: huber(a - y)),
    "bce": summed(lambda a, y: -no_log_of_zero(y, a) - no_log_of_zero(1 - y, 1 - a)),
    "cross_entropy": summed(lambda a, y: -no_log_of_zero(y, a)), "nll": lambda a, y: -a[int(y)], "cosine": cosine,
    "kl": summed(lambda a, y: no_log_of_zero(y, arb(y)) - no_log_of_zero(y, a)),
    "kl_div": summed(lambda a, y: no_log_of_zero(y, arb(y)) - y * a), "soft_margin": summed(lambda a, y: (1 + (-y * a).exp()).log()),
    "hinge": summed(lambda a, y: 1 - y * a if y * a < 1 else arb(0)),
}


def rows(head: Head, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield z and target: three scales, up to 1e3 where a fused form exists; targets hard and soft in turn."""
    rng = np.random.default_rng(0)
    fused = (head.output, head.loss) in FUSED
    for number in range(count):
        z = rng.uniform(-1, 1, SIZE) * SCALES[2 if head.loss in NEAR else number % 3 if fused else 1 + number % 2]
        kind = head.target_kind()
        if kind == "real":
            yield z, rng.standard_normal(SIZE)
        elif kind == "sign":
            yield z, rng.choice([-1.0, 1.0], size=SIZE)
        elif kind == "classes":
            yield z, rng.integers(SIZE, size=())
        elif kind == "binary":
            yield z, rng.integers(2, size=SIZE).astype(float) if number % 2 else rng.integers(65, size=SIZE) / 64
        else:
            yield z, np.eye(SIZE)[rng.integers(SIZE)] if number % 2 else rng.multinomial(64, np.full(SIZE, 1 / SIZE)) / 64


def errors(head: Head, z: np.ndarray, target: np.ndarray) -> tuple[float, float, float]:
    """Return the errors of the loss and of dz in ulps, and the distance of dz from the complex step over its bound."""

    def loss(x: Numbers) -> Numbers:
        a = DEFINITIONS[head.output](x)
        return [LOSS[head.loss](a, target)]

    value, backward = head.forward({}, z[None], target[None])
    dz = backward(1.0)[0]
    spacing = [float(np.spacing(abs(v))) for v in z]
    with precise(BITS + BITS_PER_UNIT * int(np.max(np.abs(z)))):
        point = [arb(float(v)) for v in z]
        slopes = [difference(loss, point, k)[0] for k in range(SIZE)]
        curvature = [[difference(lambda x, k=k: difference(loss, x, k), point, j)[0] for k in range(SIZE)] for j in range(SIZE)]
        exact = loss(point)[0]
        unit = max(float(np.spacing(size(exact))), *(size(s) * d for s, d in zip(slopes, spacing, strict=True)))
        off = size(arb(float(value)) - exact) / unit
        offs = [size(arb(float(dz[k])) - slopes[k]) / max(float(np.spacing(size(slopes[k]))), *(size(curvature[j][k]) * spacing[j]
                for j in range(SIZE))) for k in range(SIZE) if size(slopes[k]) > WIDTH]
    return off, max(offs, default=0.0), step_excess(head, z, target) if np.max(np.abs(z)) <= MODERATE else 0.0


def step_excess(head: Head, z: np.ndarray, target: np.ndarray) -> float:
    """Return the largest |dz - Im J(z + ih) / h| in units of twice the rounding bound."""
    arithmetic = Arithmetic(PRECISIONS["float64"])
    wrapped = target[None] if target.dtype.kind == "i" else arithmetic.exact(target[None])
    _, backward = head.forward({}, arithmetic.exact(z[None]), wrapped)
    ball = backward(arithmetic.exact(np.asarray(1.0)))
    steps = [np.imag(head.forward({}, (z + 1j * STEP * np.eye(SIZE)[k])[None], target[None])[0]) / STEP for k in range(SIZE)]
    return float(np.max(excess(np.array([steps]) - ball.value, 2 * ball.radius())))


def table(count: int) -> Iterator[str]:
    """Yield the lines of the Markdown table."""
    yield "| output | loss | route | J: ulps | dz: ulps | complex step |"
    yield "| --- | --- | --- | ---: | ---: | ---: |"
    for output, loss in pairs():
        head = Head(output, loss, "sum")
        worst = np.max([errors(head, z, target) for z, target in rows(head, count)], axis=0)
        route = "fused" if (output, loss) in FUSED else "general"
        yield f"| {output} | {loss} | {route} | {worst[0]:.2g} | {worst[1]:.2g} | {worst[2]:.2g} |"


HEADER = f"""\
# How exact the heads are

Generated by `{COMMAND}`; do not edit.

Each head runs in float64 on {{count}} rows of {SIZE} outputs, |z| up to 30, up to 1000 where a fused form exists and up to 3 for hinge
and cosine, with hard and soft targets. Units as in [proof.md](proof.md): an ulp is the larger of the result's last place and of what
one ulp of an input does to the result; a gradient below the difference quotient's own width, 2^-200, is not counted. The last column
is |dz - Im J(z + ih) / h| over |z| <= {MODERATE:g}, in units of twice the rounding bound; below 1 it is explained by rounding.

"""


def main(count: int = 120) -> None:
    """Write the table."""
    text = HEADER.format(count=count) + "\n".join(table(count)) + "\n"
    TARGET.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
