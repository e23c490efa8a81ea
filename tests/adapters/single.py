"""One layer or head by itself on a framework: numbers of a regime in a storage layout, its trace, and what no known entry explains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import backproof.adapters.jax as on_jax
import backproof.adapters.torch as on_torch
import jax
import numpy as np
import torch
from backproof.adapters.jax.versions import enable_x64, quick_jit
from backproof.adapters.torch import to_numpy, to_torch
from backproof.adapters.torch.candidate import LAYOUTS, laid
from backproof.judge.certificate import Certificate
from backproof.judge.certify import certify_layer
from backproof.judge.classify import PARTNERS, LostDigits, classify
from backproof.judge.comparing import compare
from backproof.judge.known import KnownList
from backproof.judge.rules import tensors
from backproof.reference.heads import Head
from backproof.reference.layer import Constant, Layer, Shape, each, each_shape
from backproof.reference.rounding import Precision, precision_named
from backproof.reference.trace import LayerTrace
from backproof.reference.values import TARGETS

__all__ = ["KNOWN", "LAYOUTS", "REGIMES", "Numbers", "Single", "drawn"]

REGIMES = ("normal", "zeros", "kinks", "ties", "saturated", "tiny", "wide-range")

KNOWN = KnownList()


def drawn(rng: np.random.Generator, shape: Shape, regime: str, precision: Precision, knees: tuple[float, ...] = ()) -> np.ndarray:
    """Return numbers of a regime in the precision's own format; `knees` are where a layer has no derivative."""
    sign = rng.choice([-1.0, 1.0], size=shape)
    top = min(6.0, np.log10(precision.largest) / 2)
    found = {
        "normal": lambda: rng.standard_normal(shape),
        "zeros": lambda: np.zeros(shape),
        "kinks": lambda: rng.choice([*knees, 0.0, 1.0, -1.0], size=shape),
        "ties": lambda: rng.choice([-1.0, 0.0, 0.5, 1.0], size=shape),
        "saturated": lambda: rng.uniform(-1, 1, shape) * 10 ** rng.uniform(0, 3),
        "tiny": lambda: sign * 10 ** rng.uniform(np.log10(precision.underflow) - 3, -3, shape),
        "wide-range": lambda: sign * 10 ** rng.uniform(-top, top, shape),
    }[regime]()
    return np.asarray(found).astype(precision.dtype)


def _constant(rng: np.random.Generator, constant: Constant, batch: int, precision: Precision) -> np.ndarray:
    shape = (batch, *constant.shape) if constant.batched else constant.shape
    if constant.kind == "index":
        return rng.integers(constant.below, size=shape)
    if constant.kind in {"boolean", "keep"}:
        chosen = rng.random(shape) < constant.p
        return chosen if constant.kind == "boolean" else chosen.astype(precision.dtype)
    numbers = rng.standard_normal(shape)
    return (np.abs(numbers) + 0.125 if constant.kind == "positive" else numbers).astype(precision.dtype)


@dataclass(frozen=True)
class Numbers:
    """What one run starts from; the inputs of a head are z and its target."""

    inputs: tuple[np.ndarray, ...]
    params: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]
    dys: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, layer: Any, shapes: tuple[Shape, ...], batch: int, regime: str, precision: Precision, seed: int) -> Numbers:
        """Draw the numbers of a layer, or of a head whose z has the one shape given (batch axis left out)."""
        rng = np.random.default_rng(seed)
        mild = "normal" if regime == "saturated" else regime
        if isinstance(layer, Head):
            z = drawn(rng, (batch, *shapes[0]), regime, precision)
            target = TARGETS[layer.target_kind()](rng, layer, layer.target_shape(z.shape), z.shape[-1])
            target = target.astype(precision.dtype) if target.dtype.kind == "f" else target
            return cls((z, target), {}, {}, (drawn(rng, layer.loss_shape(z.shape), "normal", precision),))
        params = {name: drawn(rng, shape, mild, precision) for name, shape in layer.parameters(*shapes).items()}
        knees = layer.kinks({name: a.astype(np.float64) for name, a in params.items()})
        sized = [(batch, *shape) for shape in shapes]
        inputs = tuple(drawn(rng, shape, regime, precision, knees) if below is None else rng.integers(below, size=shape)
                       for shape, below in zip(sized, layer.index_below(), strict=True))
        constants = {name: _constant(rng, constant, batch, precision) for name, constant in layer.constants(*shapes).items()}
        dys = tuple(drawn(rng, (batch, *shape), mild, precision) for shape in each_shape(layer.output_shape(*shapes)))
        return cls(inputs, params, constants, dys)


@dataclass(frozen=True)
class Single:
    """One layer or head on one framework, with everything that its run depends on.

    `layout` is that of the inputs, parameters and constants, `upstream` that of the gradients that come from above.
    """

    framework: str
    layer: Layer | Head
    shapes: tuple[Shape, ...]
    batch: int = 3
    regime: str = "normal"
    precision: str = "float32"
    seed: int = 0
    layout: str = "dense"
    upstream: str = "dense"

    def __str__(self) -> str:
        where = f"{self.precision}, {self.regime}, batch {self.batch}, {self.layout}, dy {self.upstream}, seed {self.seed}"
        return f"{self.framework}: {self.layer} on {self.shapes} ({where})"

    @property
    def adapter(self) -> str:
        """The adapter that runs the framework in the same way."""
        return {"torch": "torch", "jax": "jax:jit"}[self.framework]

    @cached_property
    def numbers(self) -> Numbers:
        return Numbers.of(self.layer, self.shapes, self.batch, self.regime, precision_named(self.precision), self.seed)

    @cached_property
    def trace(self) -> LayerTrace:
        """Run forward and backward; raise what the framework raises."""
        return _torch_trace(self) if self.framework == "torch" else _jax_trace(self)

    @cached_property
    def certificates(self) -> tuple[Certificate, ...]:
        return tuple(certify_layer(self.trace, precision_named(self.precision)))

    def bits(self) -> tuple[bytes, ...]:
        """Return all numbers of the trace by their bits: runs that share them share their certificates."""
        step = self.trace
        return tuple(array.tobytes() for array in (*tensors(step).values(), *step.params.values(), *step.inputs, *step.d_outputs))

    def doubts(self) -> Iterator[str]:
        """Yield a sentence for every tensor that neither agrees nor is a convention, inconclusive or known."""
        for certificate in self.certificates:
            if not certificate.failed:
                continue
            verdict = self.verdict(certificate)
            rest, met = self._excused(certificate, verdict)
            if rest.failed:
                known = f" (beside {', '.join(met)})" if met else ""
                yield (f"{self}: {rest.tensor} {verdict}{known}: excess {rest.excess:.3g}, {rest.outside} of {rest.compared} outside, "
                       f"worst at {rest.index}: {_worst(rest)} {rest.message}")

    def verdict(self, certificate: Certificate) -> str:
        """Tell `wrong` from `imprecise` by the same run in the partner precision, as `verify` does."""
        if certificate.verdict != "outside":
            return certificate.verdict
        name = PARTNERS[self.precision]
        partner = replace(self, precision=name)
        twin = next(c for c in partner.certificates if c.tensor == certificate.tensor)
        here, there = precision_named(self.precision), precision_named(name)
        return classify(LostDigits.of(self.trace, certificate, here), LostDigits.of(partner.trace, twin, there), here, there)

    def _excused(self, certificate: Certificate, verdict: str) -> tuple[Certificate, list[str]]:
        """Judge a failed certificate again without the entries that are known."""
        if certificate.actual is None or certificate.ball is None or verdict == "error":
            return certificate, []
        excused, met = KNOWN.explain(self.adapter, self.precision, self.trace, verdict, certificate)
        if not met:
            return certificate, []
        rest = compare(self.trace, certificate.tensor, certificate.actual, certificate.ball, precision_named(self.precision), excused)
        return rest, [entry.id for entry in met]


def _worst(certificate: Certificate) -> str:
    if certificate.actual is None or certificate.ball is None:
        return ""
    place = certificate.index
    return f"got {certificate.actual[place]}, expected {certificate.ball.value[place]:.9g} within {certificate.ball.radius()[place]:.3g}"


def _called(table: Any, heads: Any, layer: Any, params: Any, inputs: Any) -> Any:
    return heads[type(layer)](layer, *inputs) if isinstance(layer, Head) else table[type(layer)](layer, params, *inputs)


def _trace(case: Single, inputs: Any, outputs: Any, d_inputs: Any, dys: Any, params: Any, d_params: Any) -> LayerTrace:
    def one(items: tuple[Any, ...]) -> Any:
        return items if len(items) > 1 else items[0]

    d_inputs = d_inputs[:1] if isinstance(case.layer, Head) else d_inputs
    return LayerTrace("layer", case.layer, tuple(inputs), one(tuple(outputs)), tuple(d_inputs), one(tuple(dys)), params, d_params)


def _torch_trace(case: Single) -> LayerTrace:
    numbers = case.numbers
    inputs = [laid(to_torch(x), case.layout) for x in numbers.inputs]
    given = (numbers.params, numbers.constants)
    params, constants = ({name: laid(to_torch(a), case.layout) for name, a in named.items()} for named in given)
    leaves = [t for t in ((inputs[:1] if isinstance(case.layer, Head) else inputs) + [*params.values()]) if t.is_floating_point()]
    for leaf in leaves:
        leaf.requires_grad_()
    ys = each(_called(on_torch.LOWERINGS, on_torch.HEADS, case.layer, {**params, **constants}, inputs))
    dys = [laid(to_torch(dy), case.upstream) for dy in numbers.dys]
    torch.autograd.backward(ys, dys)
    return _trace(case, map(to_numpy, inputs), map(to_numpy, ys), [to_numpy(x.grad) if x.requires_grad else None for x in inputs],
                  map(to_numpy, dys), {name: to_numpy(t) for name, t in {**params, **constants}.items()},
                  {name: to_numpy(t.grad) for name, t in params.items()})


@lru_cache(maxsize=4)
def _compiled(layer: Any, real: tuple[int, ...]) -> Any:
    """Return outputs and gradients with respect to the inputs at `real` and the parameters; the draws of a layer share a compilation."""

    def both(inputs: Any, params: Any, constants: Any, dys: Any) -> Any:
        def forward(chosen: Any, params: Any) -> Any:
            replaced = dict(zip(real, chosen, strict=True))
            given = [replaced.get(i, x) for i, x in enumerate(inputs)]
            return _called(on_jax.LOWERINGS, on_jax.HEADS, layer, {**params, **constants}, given)

        y, pullback = jax.vjp(forward, [inputs[i] for i in real], params)
        return y, pullback(dys if isinstance(y, tuple) else dys[0])

    return quick_jit(both)


def _jax_trace(case: Single) -> LayerTrace:
    numbers = case.numbers
    real = tuple(i for i, x in enumerate(numbers.inputs) if x.dtype.kind not in "iub" and not (i and isinstance(case.layer, Head)))
    with enable_x64(case.precision == "float64"):
        result = _compiled(case.layer, real)(list(numbers.inputs), numbers.params, numbers.constants, numbers.dys)
        y, (dx, d_params) = jax.tree.map(np.asarray, result)
    by_place = dict(zip(real, dx, strict=True))
    return _trace(case, numbers.inputs, each(y), [by_place.get(i) for i in range(len(numbers.inputs))], numbers.dys,
                  {**numbers.params, **numbers.constants}, d_params)
