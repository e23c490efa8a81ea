"""What a local certificate costs beside one plain forward and backward of the same rule, layer by layer.

The plain run is the reference in float64. The rounded run is the same rule on balls in the candidate's precision; the certificate is
all of `certify_layer`: the rounded run, and every entry of every tensor judged. The candidate's numbers are the plain run's, stored
in the precision, so that every certificate agrees.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import process_time
from typing import Any

import numpy as np
from backproof.draw.probe import Probe
from backproof.judge.certify import certify_layer
from backproof.judge.rules import expected, expected_plain
from backproof.reference import library
from backproof.reference.layer import REGISTRY, Shape
from backproof.reference.rounding import PRECISIONS, Arithmetic, Precision
from backproof.reference.trace import LayerTrace
from document import conditions, milliseconds, note, table, write

LIMIT = 3.0
BETWEEN = 8  # sizes of the runs of one family are so much alike that its total means something


@dataclass(frozen=True)
class Setting:
    """A layer or head by the call that builds it, its family, and the shapes of its inputs, the batch axis left out."""

    family: str
    call: str
    shapes: tuple[Shape, ...]
    batch: int

    def layer(self) -> Any:
        return eval(self.call, {"__builtins__": {}}, REGISTRY)  # noqa: S307  (a call written below)

    def __str__(self) -> str:
        return f"{self.call} on {self.batch} of {' and '.join(str(shape) for shape in self.shapes)}"


def _settings(family: str, batch: int, calls: Iterable[str], *shapes: Shape) -> list[Setting]:
    return [Setting(family, call, shapes, batch) for call in calls]


WIDE = (1024,)
IMAGE = (16, 32, 32)
HEADS = (8, 64, 32)
SETTINGS = [
    *_settings("linear", 128, ["Linear(256)", "Linear(256, bias=False)"], (256,)),
    *_settings("activations, piecewise", 128, ["Identity()", "ReLU()", "LeakyReLU()", "PReLU()", "ReLU6()", "Hardtanh()", "Hardsigmoid()",
                                               "Hardswish()"], WIDE),
    *_settings("activations, smooth", 128, ["ELU()", "SELU()", "CELU(0.7)", "GELU()", "GELU('tanh')", "SiLU()", "Mish()", "Sigmoid()",
                                            "LogSigmoid()", "Tanh()", "Softplus()", "Softsign()"], WIDE),
    *_settings("activations, gated", 128, ["Softmax()", "LogSoftmax()", "GLU()", "SwiGLU()"], WIDE),
    *_settings("convolution", 32, ["Conv2d(16, 3)", "Conv2d(16, 3, stride=2, padding=1)"], (3, 64, 64)),
    *_settings("convolution", 8, ["Conv2d(32, 3, padding=1)", "Conv2d(16, 3, groups=16)", "ConvTranspose2d(16, 2, stride=2)"], IMAGE),
    *_settings("convolution", 32, ["Conv1d(32, 5)"], (16, 256)),
    *_settings("pooling", 8, ["MaxPool2d(2)", "MaxPool2d(3, stride=2, padding=1)", "AvgPool2d(2)", "AvgPool2d(3, stride=1, padding=1)",
                              "AdaptiveAvgPool2d(5)", "GlobalAvgPool()", "GlobalMaxPool()"], IMAGE),
    *_settings("normalisation", 128, ["LayerNorm()", "RMSNorm()", "BatchNorm()"], (256,)),
    *_settings("normalisation", 8, ["BatchNorm()", "BatchNorm(training=False)", "GroupNorm(4)", "InstanceNorm()"], IMAGE),
    *_settings("attention", 8, ["ScaledDotProductAttention()", "ScaledDotProductAttention(is_causal=True)",
                                "ScaledDotProductAttention(mask='additive')"], HEADS, HEADS, HEADS),
    *_settings("attention", 8, ["MultiheadAttention(128, 4)"], (64, 128)),
    *_settings("attention", 8, ["RotaryEmbedding()"], HEADS),
    *_settings("recurrent", 32, ["RNN(64)", "LSTM(64)", "GRU(64)"], (6, 32)),
    *_settings("reductions", 128, ["Sum()", "Mean()", "CumSum()", "LogSumExp()", "Normalize()"], WIDE),
    *_settings("reductions", 128, ["CumProd()", "Prod()"], (32,)),
    *_settings("indexing", 128, ["Dropout()", "Gather(-1, 512)", "ScatterAdd(-1, 512)", "IndexSelect(-1, 512)"], WIDE),
    *_settings("indexing", 128, ["Embedding(1000, 64)"], (16,)),
    *_settings("wiring", 128, ["Add()", "Multiply()", "Concatenate()"], WIDE, WIDE),
    *_settings("wiring", 8, ["Transpose(1, 2)", "Flatten()"], IMAGE),
    *_settings("losses", 128, ["MSELoss()", "L1Loss()", "HuberLoss()", "SmoothL1Loss()", "HingeLoss()", "SoftMarginLoss()",
                               "BCEWithLogitsLoss()", "KLDivLoss()", "Head('softmax', 'kl')"], (256,)),
    *_settings("losses", 128, ["CrossEntropyLoss()", "NLLLoss()"], (256,)),
    *_settings("losses", 128, ["CosineEmbeddingLoss()"], (2, 256)),
    *_settings("losses", 16, ["CTCLoss()"], (24, 32)),
]


def step_of(setting: Setting, precision: Precision, seed: int = 0) -> LayerTrace:
    """Return a step of numbers as `check` draws them, and what the plain rule makes of them, stored in the precision."""
    layer = setting.layer()
    call = Probe(layer, setting.shapes, setting.batch, seed, precision=precision.name).call()
    step = LayerTrace("0", layer, call.inputs, None, (), _one(call.dys), call.params, {})
    found = {name: np.asarray(a).astype(precision.dtype) for name, a in expected_plain(step).items()}
    output = _one([found.pop(name) for name in layer.output_names])
    gradients = tuple(found.pop(f"d{name}", None) for name in layer.input_names)
    return replace(step, output=output, d_inputs=gradients, d_params={name.removeprefix("d"): a for name, a in found.items()})


def _one(arrays: Sequence[Any]) -> Any:
    return tuple(arrays) if len(arrays) > 1 else arrays[0]


def best(runs: int, *functions: Callable[[], Any]) -> Iterator[float]:
    """Yield the shortest time of each function; they take turns, so that what else the machine does meets all of them."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(runs):
        for taken, function in zip(times, functions, strict=True):
            start = process_time()
            function()
            taken.append(process_time() - start)
    yield from map(min, times)


def measure(setting: Setting, precision: Precision, runs: int) -> tuple[float, float, float]:
    """Return the seconds of the plain run, the rounded run and the certificate."""
    step = step_of(setting, precision)
    wrong = [c for c in certify_layer(step, precision) if c.failed]
    if wrong:
        raise SystemExit(f"{setting}: {wrong[0].tensor} {wrong[0].verdict} {wrong[0].message}")
    plain, rounded, certificate = best(runs, lambda: expected_plain(step), lambda: expected(step, Arithmetic(precision)),
                                       lambda: certify_layer(step, precision))
    return plain, rounded, certificate


def section(settings: Iterable[Setting], precision: Precision, runs: int) -> str:
    """Return the tables of the families and of the layers."""
    rows, families = [], {}
    for setting in settings:
        note(str(setting))
        found = measure(setting, precision, runs)
        sums = families.setdefault(setting.family, np.zeros(3))
        sums += found
        plain, rounded, certificate = found
        rows.append((setting.family, str(setting), *map(milliseconds, found), f"{rounded / plain:.1f}", f"{certificate / plain:.1f}"))
    totals = [(family, *map(milliseconds, sums), f"{sums[1] / sums[0]:.1f}", f"{sums[2] / sums[0]:.1f}")
              for family, sums in families.items()]
    header = ("plain: ms", "rounded: ms", "certificate: ms", "rounded / plain", "certificate / plain")
    return f"{table(('family', *header), totals)}\n{table(('family', 'layer', *header), rows)}"


INTRODUCTION = """\
## What a local certificate costs

Written by `{command}`.

One layer at a time at the sizes given, in {precision}: the plain float64 forward and backward of the reference; the same rule in
rounded arithmetic; and the certificate, which is the rounded run and the judgement of every entry. Each figure is the best of {runs}
runs that take turns in one process. A family's row adds up the times of its layers.

"""


def main() -> None:
    """Measure, print and, where asked, write the section of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--only", default="", help="families or layers whose name contains this")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    options = parser.parse_args()
    library.load_all()
    command = f"python benchmarks/certificates.py --runs {options.runs}"
    text = INTRODUCTION.format(command=command, precision=options.precision, runs=options.runs)
    chosen = [setting for setting in SETTINGS if options.only in f"{setting.family} {setting}"]
    text += f"{section(chosen, PRECISIONS[options.precision], options.runs)}\n{conditions()}"
    print(text)
    if options.write:
        write("certificates", text)


if __name__ == "__main__":
    main()
