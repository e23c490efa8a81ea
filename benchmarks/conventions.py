"""Write docs/conventions.md: where torch, jax and the reference choose differently, measured as installed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from backproof.proof.setting import Point, Setting
from backproof.reference import heads as h
from backproof.reference import pooling as p
from backproof.reference import reductions as r
from backproof.reference.adaptive_pooling import GlobalMaxPool
from backproof.reference.attention import ScaledDotProductAttention
from backproof.reference.graph import Container
from backproof.reference.layer import Elementwise, Layer
from backproof.reference.recurrent import RNN
from behaviours import asked, nameless, shown
from document import note, table
from layers import entries, kinks, settings, versions
from single import FRAMEWORKS, Headed, certified

__all__ = ["COMMAND", "TARGET"]

COMMAND = "python benchmarks/conventions.py"
TARGET = Path(__file__).parent.parent / "docs" / "conventions.md"
Nested = Any


# Kinks and ties.


@dataclass(frozen=True, eq=False)
class Probe:
    """A layer at one point: a batch of one example, an upstream gradient of ones, parameters of one number each."""

    layer: Layer
    inputs: tuple[Nested, ...]
    parameter: float = 0.25
    constants: tuple[tuple[str, Nested], ...] = ()

    @property
    def setting(self) -> Setting:
        return Setting(self.layer, tuple(np.shape(x) for x in self.inputs))

    @property
    def point(self) -> Point:
        params = {name: np.full(shape, self.parameter) for name, shape in self.setting.parameters.items()}
        params |= {name: np.array(value) for name, value in self.constants}
        return Point(params, tuple(np.array([x], dtype=float) for x in self.inputs),
                     tuple(np.ones((1, *shape)) for shape in self.setting.outputs.values()))

    def __str__(self) -> str:
        at = ", ".join(f"{name} = {shown(x)}" for name, x in zip(self.layer.input_names, self.inputs, strict=True))
        target = f", target {shown(self.layer.given[0])}" if isinstance(self.layer, Headed) and self.layer.given else ""
        return f"{at}{target}"


def headed(head: h.Head, z: Nested, target: Nested) -> Probe:
    return Probe(Headed(head, (target,)), (z,))


def probes() -> Iterator[Probe]:
    """Yield every activation at its kinks, and what else has ties, thresholds, zero vectors or nothing to see."""
    for classes in entries().values():
        for cls in classes:
            for setting in settings(cls) if issubclass(cls, Elementwise) else ():
                at = setting.layer.kinks({name: np.full(shape, 0.25) for name, shape in setting.parameters.items()})
                if at and (not setting.parameters or setting.parameters == {"weight": (1,)}):
                    yield Probe(setting.layer, (at,))
    yield Probe(p.MaxPool1d(2), ([[1, 1]],))
    yield Probe(p.MaxPool1d(3, stride=1), ([[1, 1, 1, 1]],))
    yield Probe(p.MaxPool1d(2, stride=1, dilation=2), ([[1, 0, 1]],))
    yield Probe(p.MaxPool2d(2), ([[[1, 1], [1, 1]]],))
    yield Probe(GlobalMaxPool(), ([[1, 1, 0, 1]],))
    yield Probe(r.Normalize(eps=1.0), ([1, 0],))
    yield Probe(r.Normalize(), ([0, 0],))
    yield Probe(r.LogSumExp(), ([1, 1],))
    yield from (Probe(layer, (x,)) for layer in (r.Prod(), r.CumProd()) for x in ([2, 0, 3], [0, 0, 3]))
    yield Probe(RNN(1, nonlinearity="relu"), ([[1], [1]],), parameter=0.0)
    yield Probe(ScaledDotProductAttention(mask="boolean"), ([[1.0]], [[1.0], [2.0]], [[3.0], [5.0]]),
                constants=(("attn_mask", [[False, False]]),))
    of: dict[str, Any] = {"reduction": "none"}
    yield headed(h.L1Loss(**of), [1.0, 1.0], [1.0, 0.0])
    yield headed(h.SmoothL1Loss(**of, beta=0.0), [1.0], [1.0])
    yield headed(h.HuberLoss(**of), [2.0], [1.0])
    yield headed(h.HingeLoss(**of), [1.0, -1.0], [1.0, -1.0])
    yield headed(h.Head("linear", "cosine", "none"), [0.0, 0.0], [3.0, 4.0])
    yield headed(h.CosineEmbeddingLoss(**of), [[1.0, 0.0], [0.0, 1.0]], -1.0)
    yield headed(h.KLDivLoss(**of), [-1.0, -2.0], [1.0, 0.0])


def verdict(framework: str, probe: Probe) -> str:
    """Say of a framework's answer at a kink whether it is a subgradient at all."""
    found = certified(framework, probe.setting, probe.point, "float64")
    if isinstance(found, str):
        return found
    failed = [c.tensor for c in found[0] if c.failed]
    return ", ".join([*(f"**{tensor}: no subgradient**" for tensor in failed), *[f"known: {_ids(found[1])}"] * bool(found[1])])


def _ids(known: tuple[str, ...]) -> str:
    return ", ".join(f"`{identity}`" for identity in known)


def at_kinks() -> Iterator[tuple[list[str], bool]]:
    """Yield a row for every tensor of a probe that is not the same in all three, and for a probe without any its name."""
    for probe in probes():
        note(str(probe.layer))
        point, setting = probe.point, probe.setting
        found = {name: run(setting, point) for name, run in FRAMEWORKS.items()} | {"reference": setting.evaluate(point)}
        bounds = setting.rounded(point)
        same = True
        for tensor, ball in bounds.items():
            apart = [name for name, tensors in found.items() if not np.all(np.abs(tensors[tensor] - ball.value) <= ball.radius())]
            if apart:
                same = False
                remarks = "; ".join(f"{name}: {text}" for name in apart if (text := verdict(name, probe)))
                yield [f"`{probe.layer}`", str(probe), tensor, *(shown(found[name][tensor][0] if np.ndim(found[name][tensor]) else
                       found[name][tensor]) for name in found), remarks or "valid subgradients"], False
        if same:
            yield [f"`{probe.layer}` at {probe}"], True


# A scan of everything.


def scanned() -> tuple[list[list[str]], int]:
    """Return what differs over all layers and heads at zeros, at equal numbers and at few numbers, and how many points were tried."""
    rows: dict[tuple[str, ...], Counter[str]] = {}
    count = 0
    for cls in (cls for classes in entries().values() for cls in classes if not issubclass(cls, Container)):
        jax.clear_caches()  # type: ignore[no-untyped-call]
        chosen = settings(cls)
        for setting in chosen if cls is not h.Head and not kinks(cls).startswith("none") else chosen[:1]:
            for name, point in _degenerate(setting):
                count += 1
                for framework in FRAMEWORKS:
                    note(f"{setting.layer} {framework}")
                    for key in _differences(framework, setting, point):
                        rows.setdefault((cls.__name__, framework, *key), Counter())[name] += 1
    return [[*key, ", ".join(f"{name} ({number})" for name, number in met.items())] for key, met in rows.items()], count


def _degenerate(setting: Setting) -> Iterator[tuple[str, Point]]:
    drawn, rng = setting.draw(), np.random.default_rng(0)

    def inputs(rule: Callable[[np.ndarray], np.ndarray]) -> Point:
        return Point(drawn.params, tuple(x if x.dtype.kind == "i" else rule(x) for x in drawn.inputs), drawn.dys)

    yield "zeros", inputs(np.zeros_like)
    yield "equal", inputs(np.ones_like)
    yield "few", inputs(lambda x: rng.choice([-1.0, 0.0, 0.5, 1.0], size=x.shape))


def _differences(framework: str, setting: Setting, point: Point) -> Iterator[tuple[str, str]]:
    found = certified(framework, setting, point, "float64")
    if isinstance(found, str):
        yield "", f"not computed: {found[:100]}"
        return
    certificates, met = found
    for certificate in certificates:
        if certificate.verdict == "convention":
            yield certificate.tensor, "another valid subgradient"
        elif certificate.failed:
            yield certificate.tensor, f"**{certificate.verdict}**"
    yield from (("", f"known: `{identity}`") for identity in met)


HEADER = f"""\
# Where torch, jax and the reference differ by convention

Generated by `{COMMAND}`; do not edit. Measured on {{versions}}, run eagerly, in float64.

## At kinks and ties

The gradient at the point, for an upstream gradient of ones, and the output where that differs too; weights are 0.25 (of the recurrent layer
0). A row stands here where torch or jax lies outside the rounding bound of the reference's own choice. That an answer is a valid
subgradient is checked by the hull that the reference's rule gives. What is known is explained in `harness/judge/known/`.
"""
SCAN = """\
Every layer and head (with kinks: on every example, else on the first) on inputs of zeros, on equal inputs, and on few different ones (-1,
0, 1/2, 1): {count} points. What is not listed lies within the rounding bound of the reference's own choice. In brackets the number of
points."""


def main() -> None:
    """Write the page."""
    torch.set_default_dtype(torch.float64)
    found = list(at_kinks())
    same = "; ".join(dict.fromkeys(row[0] for row, alike in found if alike))
    rows, count = scanned()
    parts = [HEADER.format(versions=versions()).rstrip(),
             table(("layer", "at", "tensor", "torch", "jax", "reference", "remark"), [row for row, alike in found if not alike]).rstrip(),
             f"The same in all three: {same}.",
             "Functions without a layer of their own here, in the frameworks alone:",
             table(("derivative of", "at", "torch", "jax"), nameless()).rstrip(),
             "## Everything at zeros and ties", SCAN.format(count=count),
             table(("layer", "framework", "tensor", "differs by", "inputs"), rows).rstrip(),
             "## Beyond kinks", "A dash: there is no such thing, or nothing to ask.",
             table(("what", "torch", "jax", "reference"), asked())]
    TARGET.write_text("\n\n".join(parts).rstrip() + "\n", encoding="utf-8")
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
