"""Measure the activation rules against arbitrary precision and complex step, and write the table docs/proof.md.

The formulas here are definitions in the balls of Arb, and the derivatives are difference quotients of those, with a thousand
bits and more: they share no derivation and no arithmetic with the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import flint
import numpy as np
from backproof.reference import activations as a
from backproof.reference.layer import Layer
from backproof.reference.rounding import PRECISIONS, Arithmetic, Rounded
from flint import arb

__all__ = ["EXACT", "RANGE", "Error", "Exact", "complex_step", "evaluate", "excess", "inputs", "measure", "rounded", "truth"]

Numbers = Sequence[Any]
Arrays = dict[str, np.ndarray]

COMMAND = "python benchmarks/proof.py"
TARGET = Path(__file__).parent.parent / "docs" / "proof.md"
RANGE = 1e3
WIDTH = 2.0**-200  # of the difference quotients
BITS = 700  # two such widths, and 200 bits to spare
BITS_PER_UNIT = 3  # 1 - tanh(x) takes 2.9 bits for each unit of x
STEP = 2.0**-100  # of the complex step: its error is of the order of its square
STEP_RANGE = 20.0  # h times the derivative stays a normal number
UPSTREAM = (1.0, -0.75, 0.3)


@dataclass(frozen=True, eq=False)
class Exact:
    """A layer and the definition of what it computes: a row of its last axis as arbitrary-precision numbers, in and out."""

    layer: Layer
    formula: Callable[[Numbers], Numbers]
    width: int = 1
    params: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def parameters(self) -> Arrays:
        return {name: np.array(value) for name, value in self.params.items()}


def each(formula: Callable[[Any], Any]) -> Callable[[Numbers], Numbers]:
    """Turn a formula for one number into one for a row."""
    return lambda row: [formula(x) for x in row]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + (-x).exp())


def softplus(x: Any, beta: float = 1.0) -> Any:
    return (1 + (beta * x).exp()).log() / beta


def elu(x: Any, scale: Any, alpha: Any, over: Any = 1) -> Any:
    return scale * (x if x > 0 else alpha * ((x / over).exp() - 1))


def clip(x: Any, lo: float, hi: float) -> Any:
    return min(max(x, arb(lo)), arb(hi))


def gelu(x: Any) -> Any:
    return x * (-x / arb(2).sqrt()).erfc() / 2


def gelu_tanh(x: Any) -> Any:
    return x * sigmoid(2 * (2 / arb.pi()).sqrt() * (x + arb("0.044715") * x * x * x))


def softmax(row: Numbers) -> Numbers:
    total = sum(x.exp() for x in row)
    return [x.exp() / total for x in row]


def selu(x: Any) -> Any:
    return elu(x, arb("1.0507009873554804934193349852946"), arb("1.6732632423543772848170429916717"))


EXACT: tuple[Exact, ...] = (
    Exact(a.Identity(), each(lambda x: x)),
    Exact(a.ReLU(), each(lambda x: max(x, arb(0)))),
    Exact(a.LeakyReLU(), each(lambda x: max(x, arb(0)) + 0.01 * min(x, arb(0)))),
    Exact(a.PReLU(), each(lambda x: max(x, arb(0)) + 0.25 * min(x, arb(0))), params={"weight": (0.25,)}),
    Exact(a.ReLU6(), each(lambda x: clip(x, 0, 6))),
    Exact(a.Hardtanh(), each(lambda x: clip(x, -1, 1))),
    Exact(a.Hardtanh(-0.3, 2.0), each(lambda x: clip(x, -0.3, 2))),
    Exact(a.Hardsigmoid(), each(lambda x: clip(x + 3, 0, 6) / 6)),
    Exact(a.Hardswish(), each(lambda x: x * clip(x + 3, 0, 6) / 6)),
    Exact(a.ELU(), each(lambda x: elu(x, 1, 1))),
    Exact(a.ELU(1.6), each(lambda x: elu(x, 1, 1.6))),
    Exact(a.SELU(), each(selu)),
    Exact(a.CELU(), each(lambda x: elu(x, 1, 1))),
    Exact(a.CELU(0.7), each(lambda x: elu(x, 1, 0.7, 0.7))),
    Exact(a.GELU(), each(gelu)),
    Exact(a.GELU("tanh"), each(gelu_tanh)),
    Exact(a.SiLU(), each(lambda x: x * sigmoid(x))),
    Exact(a.Mish(), each(lambda x: x * softplus(x).tanh())),
    Exact(a.Sigmoid(), each(sigmoid)),
    Exact(a.LogSigmoid(), each(lambda x: -softplus(-x))),
    Exact(a.Tanh(), each(lambda x: x.tanh())),
    Exact(a.Softplus(), each(softplus)),
    Exact(a.Softplus(0.7), each(lambda x: softplus(x, 0.7))),
    Exact(a.Softsign(), each(lambda x: x / (1 + abs(x)))),
    Exact(a.Softmax(), softmax, 3),
    Exact(a.LogSoftmax(), lambda row: [y.log() for y in softmax(row)], 3),
    Exact(a.GLU(), lambda row: [row[0] * sigmoid(row[1])], 2),
    Exact(a.SwiGLU(), lambda row: [row[0] * sigmoid(row[0]) * row[1]], 2),
)


def inputs(exact: Exact, count: int, seed: int = 0) -> np.ndarray:
    """Return rows over the whole range: uniform at three scales, log-uniform towards 0, and next to every kink."""
    rng = np.random.default_rng(seed)
    quarter = -(-count * exact.width // 4)
    kinks = np.array(exact.layer.kinks(exact.parameters()))
    x = np.concatenate([*(rng.uniform(-size, size, quarter) for size in (RANGE, 60.0, 4.0)),
                        rng.choice([-1.0, 1.0], quarter) * 10.0 ** rng.uniform(-30, 1, quarter),
                        kinks * (1 + 2.0**-52) + 2.0**-60, kinks * (1 - 2.0**-52) - 2.0**-60, [RANGE, -RANGE]])
    rng.shuffle(x)
    return np.resize(x, (-(-x.size // exact.width), exact.width))


def upstream(exact: Exact, rows: int) -> np.ndarray:
    """Return dy, the same row throughout."""
    width = exact.layer.output_shape((exact.width,))[-1]
    return np.broadcast_to(np.array(UPSTREAM[:width]), (rows, width))


def evaluate(layer: Layer, params: Arrays, x: np.ndarray, dy: np.ndarray) -> Arrays:
    """Return the output and every gradient of the rule, by tensor name."""
    y, backward = layer.forward(params, x)
    dx, dparams = backward(dy)
    return {"output": y, "dx": dx} | {f"d{name}": value for name, value in dparams.items()}


def rounded(layer: Layer, params: Arrays, x: np.ndarray, dy: np.ndarray, precision: str = "float64") -> dict[str, Rounded]:
    """Return the same in rounded arithmetic."""
    arithmetic = Arithmetic(PRECISIONS[precision])
    balls: Any = {name: arithmetic.exact(value) for name, value in params.items()}
    return evaluate(layer, balls, arithmetic.exact(x), arithmetic.exact(dy))


def excess(difference: Any, bound: Any) -> np.ndarray:
    """Return |difference| / bound, with 0 / 0 = 0."""
    size = np.abs(np.asarray(difference, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(size == 0, 0.0, size / np.broadcast_to(bound, size.shape))


def complex_step(layer: Layer, params: Arrays, x: np.ndarray, dy: np.ndarray) -> Arrays:
    """Return the gradients of sum(dy * y) from the forward rule alone, entry by entry: Im f(x + ih) / h (Squire, Trapp 1998)."""

    def slope(name: str, index: tuple[int, ...]) -> float:
        moved = {key: np.asarray(value).astype(complex) for key, value in (params | {"x": x}).items()}
        moved[name][index] += 1j * STEP
        point = moved.pop("x")
        y, _ = layer.forward(moved, point)
        return float(np.sum(dy * y).imag / STEP)

    return {f"d{name}": np.array([slope(name, index) for index in np.ndindex(value.shape)]).reshape(value.shape)
            for name, value in ({"x": x} | params).items()}


@dataclass(frozen=True)
class Error:
    """How far one number of a rule is from the truth: its place, the error in units in its own last place, and in `ulps`.

    `ulps` takes as unit whichever is larger, the result's last place or what a unit in the last place of an input does to it.
    """

    tensor: str
    at: tuple[float, ...]
    own: float
    ulps: float
    exact: Any
    value: float


@cache
def truth(exact: Exact, row: tuple[float, ...]) -> dict[str, list[tuple[Any, float]]]:
    """Return the exact output and dx of one row, each number with what one unit in the last place of an input does to it."""
    width, indices = len(row), range(len(row))
    dy = UPSTREAM[: exact.layer.output_shape((width,))[-1]]
    spacing = [float(np.spacing(abs(x))) for x in row]

    with precise(BITS + BITS_PER_UNIT * int(max(abs(x) for x in row))):
        point = [arb(x) for x in row]

        def outputs(x: Numbers) -> Numbers:
            """The outputs and, last, sum(dy * y)."""
            y = exact.formula(x)
            return [*y, sum(g * v for g, v in zip(dy, y, strict=True))]

        y = exact.formula(point)
        slopes = [difference(outputs, point, k) for k in indices]
        curvatures = [[difference(partial(difference, outputs, index=k), point, j)[-1] for k in indices] for j in indices]
        y_units = [max(size(slopes[k][i]) * spacing[k] for k in indices) for i in range(len(y))]
        dx_units = [max(*(size(curvatures[j][k]) * spacing[k] for k in indices),
                        *(size(slopes[j][i]) * float(np.spacing(abs(dy[i]))) for i in range(len(y)))) for j in indices]
        dx = [slopes[k][-1] for k in indices]
    return {"output": list(zip(y, y_units, strict=True)), "dx": list(zip(dx, dx_units, strict=True))}


@contextmanager
def precise(bits: int) -> Iterator[None]:
    """Let Arb compute with so many bits."""
    before, flint.ctx.prec = flint.ctx.prec, bits
    try:
        yield
    finally:
        flint.ctx.prec = before


def difference(f: Callable[[Numbers], Numbers], point: Numbers, index: int) -> Numbers:
    """Return the central difference quotient of f by one of its arguments."""
    ahead, behind = ([x + (side * WIDTH if k == index else 0) for k, x in enumerate(point)] for side in (1, -1))
    return [(b - a) / (2 * WIDTH) for a, b in zip(f(behind), f(ahead), strict=True)]


def size(x: Any) -> float:
    return abs(float(x))


def measure(exact: Exact, x: np.ndarray) -> Iterator[Error]:
    """Yield the error of every output and every dx of the rule in float64; what underflows in a factor is not counted."""
    actual = evaluate(exact.layer, exact.parameters(), x, upstream(exact, len(x)))
    for index, values in enumerate(x):
        row = tuple(float(v) for v in values)
        forgiven = PRECISIONS["float64"].underflow * max(1.0, *(abs(v) for v in row))
        for tensor, numbers in truth(exact, row).items():
            for (value, unit), got in zip(numbers, actual[tensor][index], strict=True):
                off = max(size(arb(float(got)) - value) - forgiven, 0.0)
                own = float(np.spacing(max(size(value), PRECISIONS["float64"].underflow)))
                yield Error(tensor, row, off / own, off / max(own, unit), value, float(got))


def step_excess(exact: Exact, x: np.ndarray) -> float:
    """Return the largest |dx - complex step| in units of twice the rounding bound, over rows where no tail underflows."""
    x = x[np.all(np.abs(x) < STEP_RANGE, axis=-1)]
    params, dy = exact.parameters(), upstream(exact, len(x))
    balls, worst = rounded(exact.layer, params, x, dy), 0.0
    for row in range(len(x)):
        dx = complex_step(exact.layer, params, x[row : row + 1], dy[row : row + 1])["dx"]
        ball = balls["dx"][row : row + 1]
        worst = max(worst, float(np.max(excess(dx - ball.value, 2 * ball.radius()))))
    return worst


def table(count: int) -> Iterator[str]:
    """Yield the lines of the Markdown table."""
    yield "| layer | y: ulps | own ulps | at x | dx: ulps | own ulps | at x | complex step |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for exact in EXACT:
        x = inputs(exact, count)
        errors = list(measure(exact, x))
        cells = [f"`{exact.layer}`"]
        for tensor in ("output", "dx"):
            worst = max((e for e in errors if e.tensor == tensor), key=lambda e: e.ulps)
            own = max(e.own for e in errors if e.tensor == tensor)
            cells += [f"{worst.ulps:.2g}", f"{own:.2g}", ", ".join(f"{v:.4g}" for v in worst.at) if worst.ulps else ""]
        yield f"| {' | '.join(cells)} | {step_excess(exact, x):.2g} |"


HEADER = f"""\
# How exact the activation rules are

Generated by `{COMMAND}`; do not edit.

Each rule runs in float64 on {{count}} rows or more over [-1000, 1000]: uniform at three scales, log-uniform down to 1e-30, and
the neighbours of every kink. The truth is its definition in Arb with
{BITS} to {BITS + BITS_PER_UNIT * int(RANGE)} bits, and for dx a difference quotient of that definition; neither uses the rule's
derivation.

- **ulps**: the largest error, in the unit that is larger: the result's last place, or what one unit in the last place of an input
  (x or dy) does to the result. No evaluation that rounds its steps can promise less than a few.
- **own ulps**: the largest error in units in the result's own last place alone. It is large where the result changes much faster
  than its input (`e^(x/0.7)` at -490 turns one ulp of x / 0.7 into 700) and next to a zero of dx.
- **at x**: the input of the worst `ulps`.
- **complex step**: the largest |dx - Im f(x + ih) / h| over |x| < {STEP_RANGE:g}, in units of twice the rounding bound of dx;
  below 1 it is explained by rounding.

Results below the smallest normal number, and factors that fall below it, are not counted.

"""


def main(count: int = 2000) -> None:
    """Write the table."""
    text = HEADER.format(count=count) + "\n".join(table(count)) + "\n"
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
