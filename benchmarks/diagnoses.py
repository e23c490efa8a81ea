"""Mistakes made by hand in the backward of every layer and head, as candidates of `bp.check`: how many are named, and is any named wrongly?

A mistake is made here in plain NumPy around the layer's own forward, with no code of the table that the diagnosis looks into.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import backproof as bp
import numpy as np
from backproof.judge.mistakes import MISTAKES as TABLE
from backproof.judge.rules import expected, tensors_by_name
from backproof.proof.setting import Setting
from backproof.reference import library
from backproof.reference.convolution import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d
from backproof.reference.graph import Container
from backproof.reference.heads import Head
from backproof.reference.layer import REGISTRY, each
from backproof.reference.normalization import BatchNorm, GroupNorm, InstanceNorm
from backproof.reference.piecewise import PReLU
from backproof.reference.rounding import Arithmetic, precision_named
from backproof.reference.trace import LayerTrace
from backproof.reference.values import TARGETS
from document import conditions, note, table, write

Array = Any

CASES = 8
DRAWS = 3  # on which another name for a mistake must hold as well
BATCH = 5
BY_CODE = {mistake.code: mistake for mistake in TABLE}
CHANNELS_FIRST = (Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, PReLU, BatchNorm, GroupNorm, InstanceNorm)
SHAPES = {"CTCLoss": (5, 3), "CosineEmbeddingLoss": (2, 3)}


@dataclass(frozen=True)
class Scene:
    """What a backward has at hand: the layer, its inputs and parameters, the upstream gradients, and which gradient is wrong."""

    layer: Any
    inputs: tuple[Array, ...]
    params: dict[str, Array]
    dys: tuple[Array, ...]
    tensor: str

    @cached_property
    def outputs(self) -> tuple[Array, ...]:
        return each(self.layer.forward(self.params, *self.inputs)[0])

    @cached_property
    def gradients(self) -> dict[str, Array]:
        """The right gradients by name."""
        _, backward = self.layer.forward(self.params, *self.inputs)
        if isinstance(self.layer, Head):
            return {"dz": backward(*self.dys)}
        dx, d_params = backward(*self.dys)
        return {name: d for name, d in tensors_by_name(self.layer, (), each(dx), d_params).items() if d is not None}

    def gradient(self, **changed: Any) -> Array:
        """Return the gradient in question by the right rule, on arrays changed as named."""
        return replace(self, **changed).gradients[self.tensor] if changed else self.gradients[self.tensor]

    @property
    def of_parameter(self) -> bool:
        return self.tensor[1:] in self.params

    @property
    def batch(self) -> int:
        return int(self.inputs[0].shape[0])

    def kept(self, examples: Any) -> tuple[Array, ...]:
        """Return the upstream gradients with those of the other examples at 0."""
        weight = np.isin(np.arange(self.batch), np.arange(self.batch)[examples])
        return tuple(dy * weight.reshape(-1, *[1] * (dy.ndim - 1)) for dy in self.dys)


def _transposed(scene: Scene) -> Array | None:
    right = scene.gradient()
    square = right.ndim > (1 if scene.of_parameter else 2) and right.shape[-1] == right.shape[-2] > 1
    return np.swapaxes(right, -1, -2) if square else None


def _derivative_missing(scene: Scene) -> Array | None:
    return scene.dys[0] * 1 if scene.tensor == "dx" and scene.dys[0].shape == scene.inputs[0].shape else None


def _at_output(scene: Scene) -> Array | None:
    same = scene.tensor == "dx" and not scene.params and scene.outputs[0].shape == scene.inputs[0].shape
    return scene.gradient(inputs=scene.outputs[:1]) if same else None


def _stale(scene: Scene) -> Array | None:
    if isinstance(scene.layer, Head):
        return None
    return scene.gradient(inputs=tuple(np.roll(x, 1, axis=0) for x in scene.inputs))


def _one_position(scene: Scene) -> Array | None:
    """Sum a parameter's gradient over the batch and not over the places of an example."""
    if not scene.of_parameter or scene.dys[0].ndim < 3 or len(scene.dys) > 1:
        return None
    first = np.zeros(scene.dys[0].shape)
    first[(slice(None), slice(None), *[0] * (first.ndim - 2)) if isinstance(scene.layer, CHANNELS_FIRST) else (slice(None), 0)] = 1
    return scene.gradient(dys=(scene.dys[0] * first,))


def _entry_zeroed(scene: Scene) -> Array | None:
    right = np.array(scene.gradient())
    if right.size < 2:
        return None
    right[np.unravel_index(int(np.argmax(np.abs(right))), right.shape)] = 0
    return right


def _by_row(scene: Scene) -> Array | None:
    right = scene.gradient()
    return right * (1 + np.arange(len(right)) / 4).reshape(-1, *[1] * (right.ndim - 1)) if right.ndim > 1 and len(right) > 1 else None


def _disturbed(scene: Scene) -> Array | None:
    right = scene.gradient()
    return right * np.random.default_rng(3).uniform(0.5, 1.5, right.shape) if right.size > 2 else None


def _not_summed(scene: Scene) -> Array | None:
    """Return a parameter's gradient of each example by itself."""
    if not scene.of_parameter:
        return None
    return np.stack([scene.gradient(dys=scene.kept(slice(n, n + 1))) for n in range(scene.batch)])


def _rolled(scene: Scene) -> Array | None:
    right = scene.gradient()
    return np.roll(right, -1, axis=0) if right.ndim and len(right) > 1 else None


def _reversed(scene: Scene) -> Array | None:
    right = scene.gradient()
    return right[::-1] if right.ndim and len(right) > 2 else None


@dataclass(frozen=True)
class Kind:
    """A mistake: what is wrong in words, how it is made, and the codes that name it; `unknown` where no name is to be had."""

    words: str
    wrong: Callable[[Scene], Array | None]
    codes: tuple[str, ...]


def _scaled(words: str, code: str, factor: Callable[[Scene], float]) -> Kind:
    return Kind(words, lambda scene: scene.gradient() * factor(scene), (code,))


KINDS: tuple[Kind, ...] = (
    _scaled("zero", "zero", lambda _: 0.0),
    _scaled("the opposite sign", "sign", lambda _: -1.0),
    _scaled("twice too large", "doubled", lambda _: 2.0),
    _scaled("half", "halved", lambda _: 0.5),
    _scaled("times 1.7", "factor", lambda _: 1.7),
    _scaled("times the batch size", "times-batch", lambda scene: scene.batch),
    _scaled("over the batch size", "over-batch", lambda scene: 1 / scene.batch),
    Kind("transposed: the last two axes swapped", _transposed, ("transposed", "last-axes-swapped")),
    Kind("dy itself, no derivative", _derivative_missing, ("derivative-missing",)),
    Kind("the derivative at y", _at_output, ("derivative-at-output",)),
    Kind("dy taken for all ones", lambda scene: scene.gradient(dys=tuple(np.ones_like(dy) for dy in scene.dys)), ("upstream-ignored",)),
    Kind("the input of another example", _stale, ("stale-input",)),
    Kind("the last example left out of the sum", lambda s: s.gradient(dys=s.kept(slice(-1))) if s.of_parameter else None,
         ("last-example-dropped",)),
    Kind("the first example alone in the sum", lambda s: s.gradient(dys=s.kept(slice(1))) if s.of_parameter else None,
         ("first-example-only",)),
    Kind("not summed over the batch", _not_summed, ("not-summed",)),
    Kind("summed over the first place alone", _one_position, ("one-place-only",)),
    Kind("rows shifted by one", _rolled, ("rows-permuted",)),
    Kind("rows in reverse order", _reversed, ("rows-reversed",)),
    Kind("the largest entry zero", _entry_zeroed, ("single-entry",)),
    Kind("each row times a number of its own", _by_row, ("line-factors", "line-factor")),
    Kind("each entry times a random number", _disturbed, ("unknown",)),
)


def subjects() -> Iterator[tuple[Any, tuple[tuple[int, ...], ...], tuple[str, ...]]]:
    """Yield every layer and head with shapes of its inputs and the names of its gradients; of a class its first example."""
    library.load_all()
    for cls in REGISTRY.values():
        if not cls.__module__.startswith("backproof.reference.") or issubclass(cls, Container):
            continue
        if issubclass(cls, Head):
            yield cls(), (SHAPES.get(cls.__name__, (4,)),), ("dz",)
            continue
        layer, *shapes = next(example for example in cls.examples() if type(example[0]) is cls)
        yield layer, tuple(shapes), tuple(Setting(layer, tuple(shapes)).places)


def scene(layer: Any, shapes: tuple[tuple[int, ...], ...], tensor: str, seed: int) -> Scene:
    """Draw the numbers of a scene."""
    if isinstance(layer, Head):
        rng, shape = np.random.default_rng(seed), (BATCH, *shapes[0])
        target = TARGETS[layer.target_kind()](rng, layer, layer.target_shape(shape), shape[-1])
        return Scene(layer, (rng.standard_normal(shape), target), {}, (np.ones(layer.loss_shape(shape)),), tensor)
    point = Setting(layer, shapes).draw(batch=BATCH, seed=seed)
    return Scene(layer, point.inputs, dict(point.params), point.dys, tensor)


def candidate(layer: Any, tensor: str, kind: Kind) -> Callable[..., Any]:
    """Return the layer in NumPy, with a mistake in one gradient."""

    def called(*inputs: Array, **params: Array) -> Any:
        dtype = next(a.dtype for a in (*inputs, *params.values()) if a.dtype.kind == "f")
        wide = tuple(x.astype(np.float64) if x.dtype.kind == "f" else x for x in inputs)
        constants = {name: p.astype(np.float64) if p.dtype.kind == "f" else p for name, p in params.items()}
        y, _ = layer.forward(constants, *wide)

        def backward(*dys: Array) -> Any:
            here = Scene(layer, wide, constants, tuple(dy.astype(np.float64) for dy in dys) or (np.ones(()),), tensor)
            wrong = kind.wrong(here)
            found = {**here.gradients, **({} if wrong is None else {tensor: wrong})}
            found = {name: np.asarray(d).astype(dtype) for name, d in found.items()}
            if isinstance(layer, Head):
                return found["dz"]
            return tuple(found.get(f"d{name}") for name in layer.input_names if f"d{name}" in found), {
                name: found[f"d{name}"] for name in params if f"d{name}" in found}

        ys = tuple(np.asarray(a).astype(dtype) for a in each(y))
        return (ys if len(ys) > 1 else ys[0]), backward

    return called


def planted(subject: tuple[Any, Any], tensor: str, kind: Kind) -> list[tuple[Scene, Array]]:
    """Return some scenes with what the mistake makes of them, if it changes anything in each."""
    made = [(one, kind.wrong(one)) for one in (scene(*subject, tensor, seed) for seed in range(11, 11 + DRAWS))]
    return [(one, np.asarray(w)) for one, w in made
            if w is not None and (np.shape(w) != np.shape(one.gradient()) or np.any(np.abs(w - one.gradient()) > 1e-3 * np.abs(w).max()))]


def same_numbers(code: str, made: list[tuple[Scene, Array]]) -> bool:
    """Say whether a mistake of the table is the same numbers as one made by hand, but for rounding, on every draw."""
    if code not in BY_CODE:
        return False
    arithmetic = Arithmetic(precision_named("float64"))

    def rule(step: LayerTrace) -> Any:
        return expected(step, arithmetic)

    for one, wrong in made:
        d_inputs = tuple(one.gradients.get(f"d{name}") for name in one.layer.input_names)
        d_params = {name: one.gradients[f"d{name}"] for name in one.params if f"d{name}" in one.gradients}
        y, dy = (arrays if len(arrays) > 1 else arrays[0] for arrays in (one.outputs, one.dys))
        step = LayerTrace("candidate", one.layer, one.inputs, y, d_inputs, dy, one.params, d_params)
        ball, right = BY_CODE[code].wrong(step, one.tensor, rule), rule(step)[one.tensor]
        if ball is None or ball.shape != wrong.shape or not bool((np.abs(wrong - ball.value) <= ball.radius() + right.radius()).all()):
            return False
    return True


OUTCOMES = {"named": "named", "equal": "named as a mistake of the same numbers", "unknown": "unknown", "wrongly": "named wrongly",
            "missed": "not found"}
"""What a diagnosis is worth, best first."""


@dataclass(frozen=True)
class Trial:
    """A mistake in one gradient of a layer or head, what its diagnosis is worth, and what it says."""

    layer: Any
    tensor: str
    kind: Kind
    worth: str
    says: str


def worth(finding: Any, tensor: str, kind: Kind, made: list[tuple[Scene, Array]]) -> str:
    """Judge one finding of a candidate with a mistake in one tensor."""
    code = finding.diagnosis.code
    if finding.tensor != tensor:
        return "wrongly"
    if code in kind.codes:
        return "named"
    if code == "unknown":
        return code
    return "equal" if same_numbers(code, made) else "wrongly"


def trial(layer: Any, shapes: Any, tensor: str, kind: Kind) -> Trial | None:
    """Check a candidate with a mistake; return None where it is none."""
    with np.errstate(all="ignore"):
        made = planted((layer, shapes), tensor, kind)
    if len(made) < DRAWS:
        return None
    report = bp.check(candidate(layer, tensor, kind), layer, framework="numpy", cases=CASES, shapes=[shapes])
    found = [f for f in report.findings if f.verdict in {"wrong", "error"}]
    each_worth = [worth(f, tensor, kind, made) for f in found] if any(f.tensor == tensor for f in found) else ["missed"]
    says = "; ".join(dict.fromkeys(f"{f.diagnosis.code}: {f.diagnosis.sentence}" for f in found))
    return Trial(layer, tensor, kind, max(each_worth, key=[*OUTCOMES].index), says)


def trials(names: Sequence[str]) -> Iterator[Trial]:
    """Yield every mistake in every gradient of every layer and head, or of those named."""
    for layer, shapes, gradients in subjects():
        if names and type(layer).__name__ not in names:
            continue
        for tensor in gradients:
            note(f"{layer} {tensor}")
            yield from (found for kind in KINDS if (found := trial(layer, shapes, tensor, kind)) is not None)


# The page.

INTRODUCTION = """\
## Diagnoses

Written by `python benchmarks/diagnoses.py`.

Mistakes made by hand in one gradient at a time of every layer and head (of a class its first example, in NumPy), each through
`bp.check(candidate, layer, framework="numpy", cases=8)`: is the mistake named? A name counts where it is the mistake's own, or that of a
mistake with the same numbers (a gradient that ignores dy in a softmax is zero) on three further draws. Numbers of no mistake are right to
be called unknown. A mistake that changes nothing in a layer is left out: the input of another example where the gradient takes none.

"""


def _family(layer: Any) -> str:
    return "heads" if isinstance(layer, Head) else type(layer).__module__.rpartition(".")[2].rpartition("_")[2]


def _row(found: Sequence[Trial]) -> list[Any]:
    counts = Counter(one.worth for one in found)
    return [len(found), *(counts[outcome] for outcome in OUTCOMES), f"{(counts['named'] + counts['equal']) / len(found):.1%}"]


def section(found: Sequence[Trial]) -> str:
    """Return the tables by kind and by family, and every diagnosis that is wrong."""
    header = ("mistakes", *OUTCOMES.values(), "named rightly")
    kinds = [[kind.words, *_row([one for one in found if one.kind is kind])] for kind in KINDS if any(one.kind is kind for one in found)]
    families = []
    for family in dict.fromkeys(_family(one.layer) for one in found):
        own = [one for one in found if _family(one.layer) == family]
        tried = [len({one.kind.words for one in own if one.layer == layer}) for layer in dict.fromkeys(one.layer for one in own)]
        families.append([family, len(tried), f"{min(tried)} to {max(tried)}", *_row(own)])
    parts = [table(("mistake", *header), [*kinds, ["all", *_row(found)]]),
             table(("family", "layers", "kinds of mistake", *header), families)]
    bad = [one for one in found if one.worth in {"wrongly", "missed"}]
    parts += [f"{OUTCOMES[one.worth]}: {one.kind.words}, {one.tensor} of {one.layer}: {one.says}\n" for one in bad]
    return "\n".join(parts)


def main() -> None:
    """Measure, print and, where asked, write the section of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("layers", nargs="*", metavar="LAYER", help="such as Linear; every layer and head if left out")
    parser.add_argument("--list", action="store_true", help="print each mistake that is not named by its own name")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    options = parser.parse_args()
    found = []
    for one in trials(options.layers):
        found.append(one)
        if options.list and one.worth != "named":
            print(f"{one.worth}: {one.kind.words}, {one.tensor} of {one.layer}: {one.says}", flush=True)
    text = f"{INTRODUCTION}{section(found)}\n{conditions()}"
    print(text)
    if options.write:
        write("diagnoses", text)


if __name__ == "__main__":
    main()
