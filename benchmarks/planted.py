"""Layers whose backward holds a mistake, for torch and jax alike, so that every gradient checker meets the same one.

A planted layer is a subclass of the reference's layer: its truth is inherited, and only the adapters' lowering differs.
The lowering computes the forward with the adapter's own operator and the backward by hand, as a `torch.autograd.Function`
and a `jax.custom_vjp` around one piece of code that both array libraries understand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from backproof.adapters import jax as jax_adapter
from backproof.adapters import torch as torch_adapter
from backproof.reference import activations as a
from backproof.reference.layer import Layer
from backproof.reference.linear import Linear

__all__ = ["MISTAKES", "PLANTED", "Mistake", "Plant"]

Array = Any
"""A torch tensor or a jax array."""

PART = 1e-4


@dataclass(frozen=True)
class Plant:
    """A mistake by its code, the gradient it is in, and the entry where it stands if not the largest one."""

    code: str
    tensor: str
    index: tuple[int, ...] = ()


@dataclass(frozen=True)
class PlantedLinear(Linear):
    """A Linear whose backward is written by hand, with a mistake in it unless `plant` is None."""

    plant: Plant | None = None


@dataclass(frozen=True)
class PlantedReLU(a.ReLU):
    """A ReLU whose backward is written by hand, likewise."""

    plant: Plant | None = None


@dataclass(frozen=True)
class PlantedTanh(a.Tanh):
    """A Tanh whose backward is written by hand, likewise."""

    plant: Plant | None = None


@dataclass(frozen=True)
class PlantedSigmoid(a.Sigmoid):
    """A Sigmoid whose backward is written by hand, likewise."""

    plant: Plant | None = None


@dataclass(frozen=True)
class Scene:
    """What a backward has at hand: the array library, the layer's rule, its input, its parameters, the upstream gradient."""

    xp: Any
    rule: Callable[[Scene], dict[str, Array]]
    x: Array
    params: dict[str, Array]
    dy: Array
    plant: Plant | None

    def gradient(self, **changed: Any) -> Array:
        """Return the planted gradient by the right rule, on arrays changed as named."""
        if self.plant is None:
            raise LookupError("nothing is planted here")
        return self.rule(replace(self, **changed))[self.plant.tensor]


def _linear(scene: Scene) -> dict[str, Array]:
    found = {"dx": scene.dy @ scene.params["weight"], "dweight": scene.dy.T @ scene.x}
    return found | {"dbias": scene.dy.sum(0)} if "bias" in scene.params else found


def _relu(scene: Scene) -> dict[str, Array]:
    return {"dx": scene.xp.where(scene.x > 0, scene.dy, 0 * scene.dy)}


def _tanh(scene: Scene) -> dict[str, Array]:
    y = scene.xp.tanh(scene.x)
    return {"dx": scene.dy * (1 - y * y)}


def _sigmoid(scene: Scene) -> dict[str, Array]:
    y = 1 / (1 + scene.xp.exp(-scene.x))
    return {"dx": scene.dy * y * (1 - y)}


PLANTED: dict[type[Layer], tuple[type[Layer], Callable[[Scene], dict[str, Array]]]] = {
    PlantedLinear: (Linear, _linear), PlantedReLU: (a.ReLU, _relu), PlantedTanh: (a.Tanh, _tanh),
    PlantedSigmoid: (a.Sigmoid, _sigmoid),
}
"""Every layer that can hold a mistake: the layer it stands in for, and its right backward."""


def _term_dropped(scene: Scene) -> Array:
    return scene.gradient(x=scene.x[:-1], dy=scene.dy[:-1])


def _sign(scene: Scene) -> Array:
    return -scene.gradient()


def _over_batch(scene: Scene) -> Array:
    return scene.gradient() / len(scene.x)


def _transposed(scene: Scene) -> Array:
    if scene.plant is not None and scene.plant.tensor == "dx":
        return scene.gradient(params={**scene.params, "weight": scene.params["weight"].T})
    return scene.gradient().T


def _entry(scene: Scene) -> Array:
    """Return a mask of the entry named in the plant, or of the largest one."""
    right = scene.gradient()
    if scene.plant is None or not scene.plant.index:
        size = abs(right)
        return size == size.max()
    mask = np.zeros(tuple(right.shape), dtype=bool)
    mask[scene.plant.index] = True
    return scene.xp.asarray(mask)


def _entry_zeroed(scene: Scene) -> Array:
    right = scene.gradient()
    return scene.xp.where(_entry(scene), 0 * right, right)


def _entry_nudged(scene: Scene) -> Array:
    right = scene.gradient()
    return scene.xp.where(_entry(scene), (1 + PART) * right, right)


def _rows_permuted(scene: Scene) -> Array:
    return scene.xp.roll(scene.gradient(), 1, 0)


def _stale(scene: Scene) -> Array:
    return scene.gradient(x=scene.xp.roll(scene.x, 1, 0))


def _upstream_ignored(scene: Scene) -> Array:
    return scene.gradient(dy=scene.xp.ones_like(scene.dy))


@dataclass(frozen=True)
class Mistake:
    """`wrong` computes the gradient with the mistake; `linear` and `activation` name the gradients it can be in.

    `wide` marks one that is none in a layer of width 1.
    """

    sentence: str
    wrong: Callable[[Scene], Array]
    linear: tuple[str, ...] = ()
    activation: tuple[str, ...] = ()
    wide: bool = False


MISTAKES: dict[str, Mistake] = {
    "term-dropped": Mistake("the last example is left out of the sum", _term_dropped, ("dweight", "dbias")),
    "sign": Mistake("the sign is turned", _sign, ("dx", "dweight", "dbias"), ("dx",)),
    "over-batch": Mistake("divided by the batch size once too often", _over_batch, ("dweight", "dbias")),
    "transposed": Mistake("dy W^T for dy W, or dW transposed", _transposed, ("dx", "dweight"), wide=True),
    "entry-zeroed": Mistake("the largest entry is zero", _entry_zeroed, ("dweight", "dx", "dbias"), ("dx",)),
    "entry-off-by-1e-4": Mistake("the largest entry is off by 1e-4 of it", _entry_nudged, ("dweight", "dx", "dbias"), ("dx",)),
    "rows-permuted": Mistake("the rows are shifted by one", _rows_permuted, ("dweight", "dx"), wide=True),
    "stale-mask": Mistake("the mask or slope of another example", _stale, (), ("dx",)),
    "upstream-ignored": Mistake("the upstream gradient is taken for all ones", _upstream_ignored, ("dweight",), ("dx",)),
}


def _backward(scene: Scene) -> dict[str, Array]:
    """Return every gradient of a planted layer, the mistake included."""
    found = scene.rule(scene)
    return found if scene.plant is None else found | {scene.plant.tensor: MISTAKES[scene.plant.code].wrong(scene)}


class _Torch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: Any, x: Array, *params: Array) -> Array:
        ctx.layer = layer
        ctx.save_for_backward(x, *params)
        stands_for, _ = PLANTED[type(layer)]
        return torch_adapter.LOWERINGS[stands_for](layer, _named(params), x)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        x, *params = ctx.saved_tensors
        named = _named(params)
        _, rule = PLANTED[type(ctx.layer)]
        found = _backward(Scene(torch, rule, x, named, dy, ctx.layer.plant))
        return (None, found["dx"], *(found[f"d{name}"] for name in named))


def _named(params: Any) -> dict[str, Array]:
    return dict(zip(("weight", "bias"), params, strict=False))


def _torch_lowering(layer: Any, params: dict[str, Array], x: Array) -> Array:
    ordered = [params[name] for name in ("weight", "bias") if name in params]
    return _Torch.apply(layer, x, *ordered)  # type: ignore[no-untyped-call]


@lru_cache(maxsize=64)
def _jax_function(layer: Any) -> Callable[[Array, dict[str, Array]], Array]:
    stands_for, rule = PLANTED[type(layer)]

    @jax.custom_vjp
    def function(x: Array, params: dict[str, Array]) -> Array:
        return jax_adapter.LOWERINGS[stands_for](layer, params, x)

    def forward(x: Array, params: dict[str, Array]) -> tuple[Array, Any]:
        return function(x, params), (x, params)

    def backward(saved: Any, dy: Array) -> Any:
        x, params = saved
        found = _backward(Scene(jnp, rule, x, params, dy, layer.plant))
        return found["dx"], {name: found[f"d{name}"] for name in params}

    function.defvjp(forward, backward)
    return function


def _jax_lowering(layer: Any, params: dict[str, Array], x: Array) -> Array:
    return _jax_function(layer)(x, params)


torch_adapter.LOWERINGS.update(dict.fromkeys(PLANTED, _torch_lowering))
jax_adapter.LOWERINGS.update(dict.fromkeys(PLANTED, _jax_lowering))
