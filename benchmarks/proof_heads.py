"""Measure the heads against arbitrary precision and complex step, and write the table of docs/proof-heads.md.

As in proof.py, the loss is its definition in the balls of Arb and its gradient a difference quotient of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from backproof.reference.heads import FUSED, LOSSES, OUTPUTS, Head
from backproof.reference.rounding import PRECISIONS, Arithmetic
from flint import arb
from proof import BITS, BITS_PER_UNIT, WIDTH, Numbers, difference, each, excess, precise, sigmoid, size, softmax

COMMAND = "python benchmarks/proof_heads.py"
TARGET = Path(__file__).parent.parent / "docs" / "proof-heads.md"
STEP = 2.0**-500
SIZE = 3
SCALES = (1e3, 30.0, 3.0)
MODERATE = 30.0

DEFINITIONS: dict[str, Callable[[Numbers], Numbers]] = {
    "linear": each(lambda x: x), "sigmoid": each(sigmoid), "softmax": softmax, "tanh": each(lambda x: x.tanh()),
}  # fmt: skip


def no_log_of_zero(weight: float, x: Any) -> Any:
    """weight log x, which is 0 for a weight of 0."""
    return weight * x.log() if weight else arb(0)


def huber(e: Any) -> Any:
    return e * e / 2 if abs(e) <= 1 else abs(e) - arb("0.5")


LOSS: dict[str, Callable[[Any, float], Any]] = {
    "mse": lambda a, y: (a - y) ** 2, "half_squared_error": lambda a, y: (a - y) ** 2 / 2, "l1": lambda a, y: abs(a - y),
    "huber": lambda a, y: huber(a - y), "bce": lambda a, y: -no_log_of_zero(y, a) - no_log_of_zero(1 - y, 1 - a),
    "cross_entropy": lambda a, y: -no_log_of_zero(y, a),
}  # fmt: skip


def rows(head: Head, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield z and target: three scales, up to 1e3 where a fused form exists; targets hard and soft in turn."""
    rng = np.random.default_rng(0)
    fused = (head.output, head.loss) in FUSED
    for number in range(count):
        z = rng.uniform(-1, 1, SIZE) * SCALES[number % 3 if fused else 1 + number % 2]
        kind = head.target_kind()
        if kind == "real":
            yield z, rng.standard_normal(SIZE)
        elif kind == "binary":
            yield z, rng.integers(2, size=SIZE).astype(float) if number % 2 else rng.integers(65, size=SIZE) / 64
        else:
            yield z, np.eye(SIZE)[rng.integers(SIZE)] if number % 2 else rng.multinomial(64, np.full(SIZE, 1 / SIZE)) / 64


def errors(head: Head, z: np.ndarray, target: np.ndarray) -> tuple[float, float, float]:
    """Return the errors of the loss and of dz in ulps, and the distance of dz from the complex step over its bound."""

    def loss(x: Numbers) -> Numbers:
        a = DEFINITIONS[head.output](x)
        return [sum(LOSS[head.loss](v, float(y)) for v, y in zip(a, target, strict=True))]

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
                for j in range(SIZE))) for k in range(SIZE) if size(slopes[k]) > WIDTH]  # fmt: skip
    return off, max(offs, default=0.0), step_excess(head, z, target) if np.max(np.abs(z)) <= MODERATE else 0.0


def step_excess(head: Head, z: np.ndarray, target: np.ndarray) -> float:
    """Return the largest |dz - Im J(z + ih) / h| in units of twice the rounding bound."""
    arithmetic = Arithmetic(PRECISIONS["float64"])
    _, backward = head.forward({}, arithmetic.exact(z[None]), arithmetic.exact(target[None]))
    ball = backward(arithmetic.exact(np.asarray(1.0)))
    steps = [np.imag(head.forward({}, (z + 1j * STEP * np.eye(SIZE)[k])[None], target[None])[0]) / STEP for k in range(SIZE)]
    return float(np.max(excess(np.array([steps]) - ball.value, 2 * ball.radius())))


def table(count: int) -> Iterator[str]:
    """Yield the lines of the Markdown table."""
    yield "| output | loss | route | J: ulps | dz: ulps | complex step |"
    yield "| --- | --- | --- | ---: | ---: | ---: |"
    for output in OUTPUTS:
        for loss in LOSSES:
            try:
                head = Head(output, loss, "sum")
            except ValueError:
                continue  # a loss of probabilities takes its own output only
            worst = np.max([errors(head, z, target) for z, target in rows(head, count)], axis=0)
            route = "fused" if (output, loss) in FUSED else "general"
            yield f"| {output} | {loss} | {route} | {worst[0]:.2g} | {worst[1]:.2g} | {worst[2]:.2g} |"


HEADER = f"""\
# How exact the heads are

Generated by `{COMMAND}`; do not edit.

Each head runs in float64 on {{count}} rows of {SIZE} outputs, |z| up to 30, and up to 1000 where a fused form exists, with hard and
soft targets. Units as in [proof.md](proof.md): an ulp is the larger of the result's last place and of what one ulp of an input does
to the result; a gradient below the difference quotient's own width, 2^-200, is not counted. The last column is
|dz - Im J(z + ih) / h| over |z| <= {MODERATE:g}, in units of twice the rounding bound; below 1 it is explained by rounding.

"""


def main(count: int = 120) -> None:
    """Write the table."""
    text = HEADER.format(count=count) + "\n".join(table(count)) + "\n"
    TARGET.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
