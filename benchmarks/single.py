"""One layer or head by itself: by its rule, on torch and on jax, each giving its tensors by name, and what certificates say of them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import torch
from backproof.adapters import jax as jax_adapter
from backproof.adapters import torch as torch_adapter
from backproof.adapters.torch import to_numpy, to_torch
from backproof.judge.certificate import Certificate
from backproof.judge.certify import certify_layer
from backproof.judge.comparing import compare
from backproof.judge.known import KnownList
from backproof.proof.setting import Point, Setting
from backproof.reference.layer import Backward, Layer, Params, Shape
from backproof.reference.rounding import PRECISIONS, Array, Rounded
from backproof.reference.trace import LayerTrace
from backproof.reference.values import TARGETS
from backproof.wording import said

__all__ = ["FRAMEWORKS", "Headed", "Tensors", "certified", "held", "on_jax", "on_torch", "trace_of"]

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Headed(Layer):
    """A head of unreduced losses as a layer of z; the target, in multiples of 1/64, is drawn by the number of examples or given."""

    input_names: ClassVar[tuple[str, ...]] = ("z",)

    head: Any
    given: tuple[Any, ...] | None = None

    def __str__(self) -> str:
        return str(self.head)

    def target(self, shape: Shape) -> np.ndarray:
        if self.given is not None:
            return np.array(self.given)
        drawn = TARGETS[self.head.target_kind()](np.random.default_rng(7), self.head, self.head.target_shape(shape), shape[-1])
        return drawn if drawn.dtype.kind == "i" else np.clip(np.round(drawn * 64) / 64, -3, 3)

    def output_shape(self, shape: Shape) -> Shape:
        self.head.check_shape(shape)
        return self.head.loss_shape((1, *shape))[1:]

    def forward(self, params: Params, z: Array) -> tuple[Array, Backward]:
        target = self.target(z.shape)
        if target.dtype.kind != "i":
            target = z.arithmetic.exact(target) if isinstance(z, Rounded) else np.sum(z * 0) + target.astype(z.dtype)
        loss, backward = self.head.forward(params, z, target)
        return loss, lambda dy: (backward(dy), {})


def held(point: Point, precision: str) -> Point:
    """Return a point in a precision's own format."""
    return point.lifted(lambda array: array.astype(PRECISIONS[precision].dtype))


def _called(setting: Setting, lowerings: Mapping[type, Any], heads: Mapping[type, Any], convert: Callable[[np.ndarray], Any],
            dtype: Any) -> Callable[..., Any]:
    """Return a setting's lowering as a function of parameters and inputs."""
    layer = setting.layer
    if not isinstance(layer, Headed):
        return lambda params, *xs: lowerings[type(layer)](layer, params, *xs)

    def head(params: Params, z: Any) -> Any:
        target = layer.target(tuple(z.shape))
        return heads[type(layer.head)](layer.head, z, convert(target if target.dtype.kind == "i" else target.astype(dtype)))

    return head


def _named(setting: Setting, outputs: Any, dxs: Any, dparams: Mapping[str, Any]) -> dict[str, np.ndarray]:
    named = {f"d{name}": dx for name, dx in zip(setting.layer.input_names, dxs, strict=True) if dx is not None}
    return {**dict(zip(setting.layer.output_names, outputs, strict=True)), **named, **{f"d{name}": d for name, d in dparams.items()}}


def on_torch(setting: Setting, point: Point) -> dict[str, np.ndarray]:
    """Run a layer by eager autograd and return outputs and gradients."""
    xs, given = [to_torch(x) for x in point.inputs], {name: to_torch(array) for name, array in point.params.items()}
    leaves = [t for t in (*xs, *(given[name] for name in setting.parameters)) if t.is_floating_point()]
    for leaf in leaves:
        leaf.requires_grad_()
    y = _called(setting, torch_adapter.LOWERINGS, torch_adapter.HEADS, to_torch, point.dys[0].dtype)(given, *xs)
    ys = y if isinstance(y, tuple) else (y,)
    torch.autograd.backward(ys, [to_torch(dy) for dy in point.dys])
    return _named(setting, map(to_numpy, ys), [to_numpy(x.grad) if x.is_floating_point() else None for x in xs],
                  {name: to_numpy(given[name].grad) for name in setting.parameters})


def on_jax(setting: Setting, point: Point) -> dict[str, np.ndarray]:
    """Run a layer by eager `jax.vjp` and return outputs and gradients."""
    lowering = _called(setting, jax_adapter.LOWERINGS, jax_adapter.HEADS, jnp.asarray, point.dys[0].dtype)
    real = [k for k, below in enumerate(setting.below) if below is None]
    fixed = {name: array for name, array in point.params.items() if name not in setting.parameters}

    def function(moving: list[Any], params: Mapping[str, Any]) -> Any:
        xs: list[Any] = [jnp.asarray(x) for x in point.inputs]
        for k, x in zip(real, moving, strict=True):
            xs[k] = x
        return lowering({**params, **fixed}, *xs)

    with jax.enable_x64(point.dys[0].dtype == np.float64):
        moving = [jnp.asarray(point.inputs[k]) for k in real]
        y, pullback = jax.vjp(function, moving, {name: jnp.asarray(point.params[name]) for name in setting.parameters})
        dys = tuple(map(jnp.asarray, point.dys))
        d_moving, dparams = pullback(dys if isinstance(y, tuple) else dys[0])
        dxs = dict(zip(real, map(np.asarray, d_moving), strict=True))
        return _named(setting, map(np.asarray, y if isinstance(y, tuple) else (y,)), [dxs.get(k) for k in range(len(setting.below))],
                      {name: np.asarray(d) for name, d in dparams.items()})


FRAMEWORKS: dict[str, Callable[[Setting, Point], dict[str, np.ndarray]]] = {"torch": on_torch, "jax": on_jax}


def trace_of(setting: Setting, point: Point, found: Tensors) -> LayerTrace:
    """Return what a framework gave as the trace of one layer, a head as itself."""

    def one(names: tuple[str, ...]) -> Any:
        arrays = tuple(found[name] for name in names)
        return arrays if len(arrays) > 1 else arrays[0]

    layer, dys = setting.layer, point.dys if len(point.dys) > 1 else point.dys[0]
    if isinstance(layer, Headed):
        (z,), dtype = point.inputs, point.dys[0].dtype
        target = layer.target(z.shape)
        return LayerTrace("head", layer.head, (z, target if target.dtype.kind == "i" else target.astype(dtype)), one(layer.output_names),
                          (found["dz"],), dys, {}, {})
    return LayerTrace("layer", layer, point.inputs, one(layer.output_names), tuple(found.get(f"d{name}") for name in layer.input_names),
                      dys, point.params, {name: found[f"d{name}"] for name in setting.parameters})


def certified(framework: str, setting: Setting, point: Point, precision: str) -> tuple[list[Certificate], tuple[str, ...]] | str:
    """Return the certificates of a layer on a framework, known discrepancies taken out, and the ids of these; or what was raised."""
    at = held(point, precision)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            found = FRAMEWORKS[framework](setting, at)
    except Exception as error:  # noqa: BLE001  (a framework need not compute everything in every precision)
        return said(error)
    step, certificates, met = trace_of(setting, at, found), [], set()
    for certificate in certify_layer(step, PRECISIONS[precision]):
        rest = certificate
        for verdict in ("wrong", "imprecise", "nonfinite") if certificate.failed and certificate.actual is not None else ():
            excused, entries = KnownList().explain(framework, precision, step, verdict, certificate)
            again = compare(step, certificate.tensor, certificate.actual, certificate.ball, PRECISIONS[precision], excused)  # type: ignore[arg-type]
            if entries and not again.failed:
                rest = again
                met.update(entry.id for entry in entries)
                break
        certificates.append(rest)
    return certificates, tuple(sorted(met))


