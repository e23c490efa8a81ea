"""Write docs/conventions.md: where torch, jax and the reference do different things that are all defensible, measured as installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from backproof.contract import said
from backproof.reference import activations as a
from backproof.reference import heads as h
from backproof.reference import pooling as p
from backproof.reference import reductions as r
from backproof.reference.attention import ScaledDotProductAttention
from backproof.reference.convolution import Conv1d
from backproof.reference.ctc import CTCLoss
from backproof.reference.graph import Container
from backproof.reference.indexing import Embedding
from backproof.reference.layer import Elementwise, Layer
from backproof.reference.normalization import BatchNorm
from backproof.reference.recurrent import RNN
from backproof.setting import Point, Setting
from document import note, table
from layers import entries, kinks, settings, versions
from single import FRAMEWORKS, Headed, certified

__all__ = ["COMMAND", "TARGET"]

COMMAND = "python benchmarks/conventions.py"
TARGET = Path(__file__).parent.parent / "docs" / "conventions.md"
Nested = Any


def shown(value: Any) -> str:
    """Return numbers as short text, one row in brackets."""
    array = np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)
    if array.ndim == 0:
        return str(value) if array.dtype.kind == "U" else f"{float(array) + 0.0:.6g}"
    return f"({', '.join(shown(item) for item in array)})" if len(array) > 1 or array.ndim == 1 else shown(array[0])


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
        return Point(params | {name: np.array(value) for name, value in self.constants}, tuple(np.array([x], dtype=float) for x in self.inputs),
                     tuple(np.ones((1, *shape)) for shape in self.setting.outputs.values()))  # fmt: skip

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
    yield Probe(p.GlobalMaxPool(), ([[1, 1, 0, 1]],))
    yield Probe(r.Normalize(eps=1.0), ([1, 0],))
    yield Probe(r.Normalize(), ([0, 0],))
    yield Probe(r.LogSumExp(), ([1, 1],))
    yield from (Probe(layer, (x,)) for layer in (r.Prod(), r.CumProd()) for x in ([2, 0, 3], [0, 0, 3]))
    yield Probe(RNN(1, nonlinearity="relu"), ([[1], [1]],), parameter=0.0)
    yield Probe(ScaledDotProductAttention(mask="boolean"), ([[1.0]], [[1.0], [2.0]], [[3.0], [5.0]]), 0.25, (("attn_mask", [[False, False]]),))
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
    return ", ".join([*(f"**{tensor}: no subgradient**" for tensor in failed), *(f"known, `{identity}`" for identity in found[1])])


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
                       found[name][tensor]) for name in found), remarks or "valid subgradients"], False  # fmt: skip
        if same:
            yield [f"`{probe.layer}` at {probe}"], True


# A scan of everything.


def scanned() -> tuple[list[list[str]], int]:
    """Return what differs over all layers and heads at zeros, at equal numbers and at few numbers, and how many points were tried."""
    rows: dict[tuple[str, ...], int] = {}
    count = 0
    for classes in entries().values():
        for cls in classes:
            if issubclass(cls, Container):
                continue
            for setting in settings(cls) if cls is not h.Head and not kinks(cls).startswith("none") else settings(cls)[:1]:
                for name, point in _degenerate(setting):
                    count += 1
                    for framework in FRAMEWORKS:
                        note(f"{setting.layer} {framework}")
                        for key in _differences(framework, setting, point):
                            rows[cls.__name__, name, framework, *key] = rows.get((cls.__name__, name, framework, *key), 0) + 1
    return [[*key, str(number)] for key, number in rows.items()], count


def _degenerate(setting: Setting) -> Iterator[tuple[str, Point]]:
    drawn, rng = setting.draw(), np.random.default_rng(0)

    def inputs(rule: Callable[[np.ndarray], np.ndarray]) -> Point:
        return Point(drawn.params, tuple(x if x.dtype.kind == "i" else rule(x) for x in drawn.inputs), drawn.dys)

    yield "zeros", inputs(np.zeros_like)
    yield "equal numbers", inputs(np.ones_like)
    yield "numbers of -1, 0, 1/2, 1", inputs(lambda x: rng.choice([-1.0, 0.0, 0.5, 1.0], size=x.shape))


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
    yield from (("", f"known, `{identity}`") for identity in met)


# What has nothing to do with kinks.


def answer(function: Callable[[], Any]) -> str:
    """Return what a call gives, or what it raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return shown(function())
    except Exception as error:  # noqa: BLE001  (a refusal is an answer)
        return f"refused: {said(error)[:110]}".replace("|", "\\|")


def grad(function: Callable[[Any], Any], *x: Any) -> Any:
    """Return torch's gradient of a sum."""
    leaf = torch.tensor(x[0] if len(x) == 1 else x, requires_grad=True)
    function(leaf).sum().backward()
    return leaf.grad


def jgrad(function: Callable[[Any], Any], *x: Any) -> Any:
    """Return jax's gradient of a sum."""
    return jax.grad(lambda leaf: jnp.sum(function(leaf)))(jnp.array(x[0] if len(x) == 1 else x))


def rule(layer: Any, *x: Any, params: dict[str, Any] | None = None) -> Any:
    """Return the output of a rule for one example."""
    return layer.forward({name: np.array(v) for name, v in (params or {}).items()}, *(np.array([v]) for v in x))[0][0]


NAMELESS: tuple[tuple[str, Callable[[Any], Any], Callable[[Any], Any], tuple[float, ...]], ...] = (
    ("abs", torch.abs, jnp.abs, (0.0,)), ("sqrt", torch.sqrt, jnp.sqrt, (0.0,)), ("norm", torch.linalg.norm, jnp.linalg.norm, (0.0, 0.0)),
    ("maximum(x, 0)", lambda x: torch.maximum(x, torch.zeros_like(x)), lambda x: jnp.maximum(x, 0), (0.0,)),
    ("clip(x, 0, 6)", lambda x: torch.clamp(x, 0, 6), lambda x: jnp.clip(x, 0, 6), (0.0, 6.0)),
    ("max of the vector", torch.amax, jnp.max, (1.0, 1.0)), ("max of the vector, by max()", torch.max, jnp.max, (1.0, 1.0)),
    ("median", torch.median, jnp.median, (1.0, 2.0)),
)  # fmt: skip

LOGITS = np.log(np.array([[[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]]))
ONES, FOUR = [[1.0] * 6], [[1.0, 2.0, 3.0, 4.0]]


def _attention_rows() -> tuple[Callable[[], Any], ...]:
    q, k, v, mask = np.ones((1, 1, 1)), np.array([[[1.0], [2.0]]]), np.array([[[3.0], [5.0]]]), np.array([[False, False]])
    layer = ScaledDotProductAttention(mask="boolean")
    return (lambda: F.scaled_dot_product_attention(*map(torch.tensor, (q, k, v)), attn_mask=torch.tensor(mask))[0, 0],
            lambda: jax.nn.dot_product_attention(*(jnp.array(x)[:, :, None] for x in (q, k, v)), mask=mask[None, None])[0, 0, 0],
            lambda: layer.forward({"attn_mask": mask}, q, k, v)[0][0, 0])  # fmt: skip


def _window(x: Any, mode: str) -> Any:
    return jax.lax.reduce_window(jnp.array([x]), 0.0, jax.lax.add, (1, 1, 3), (1, 1, 2), mode)


def _ctc(log_p: Any) -> Any:
    return F.ctc_loss(log_p.transpose(0, 1), torch.tensor([[1]]), torch.tensor([2]), torch.tensor([1]), reduction="sum")


def behaviours() -> Iterator[tuple[str, Callable[[], Any], Callable[[], Any] | None, Callable[[], Any] | None]]:
    """Yield what is asked, and how torch, jax and the reference are asked; None where there is no such thing."""
    yield "`gelu(1)`, form not named", lambda: F.gelu(torch.tensor(1.0)), lambda: jax.nn.gelu(1.0), lambda: rule(a.GELU(), 1.0)
    yield "attention of a query that sees no key; the values are 3 and 5", *_attention_rows()
    yield ("average pooling of ones, length 6, kernel 3, stride 2, `ceil_mode`; jax: sums of `reduce_window`, `SAME`",
           lambda: F.avg_pool1d(torch.tensor([ONES]), 3, 2, ceil_mode=True), lambda: _window(ONES, "SAME"),
           lambda: rule(p.AvgPool1d(3, stride=2, ceil_mode=True), ONES))  # fmt: skip
    yield ("the same with padding 1: the padding counts in the divisor, what lies beyond it does not",
           lambda: F.avg_pool1d(torch.tensor([ONES]), 3, 2, padding=1, ceil_mode=True), None,
           lambda: rule(p.AvgPool1d(3, stride=2, padding=1, ceil_mode=True), ONES))  # fmt: skip
    weight = [[[1.0, 10.0]]]
    yield ("`padding=\"same\"`, even kernel (1, 10) over (1, 2, 3, 4)",
           lambda: F.conv1d(torch.tensor([FOUR]), torch.tensor(weight), padding="same"),
           lambda: jax.lax.conv(jnp.array([FOUR]), jnp.array(weight), (1,), "SAME"),
           lambda: rule(Conv1d(1, 2, padding="same", bias=False), FOUR, params={"weight": weight}))  # fmt: skip
    yield ("the same with stride 2", lambda: F.conv1d(torch.tensor([FOUR]), torch.tensor(weight), stride=2, padding="same"),
           lambda: jax.lax.conv(jnp.array([FOUR]), jnp.array(weight), (2,), "SAME"),
           lambda: rule(Conv1d(1, 2, stride=2, padding="same", bias=False), FOUR, params={"weight": weight}))  # fmt: skip
    yield ("transposed convolution of (1, 0) with the kernel (1, 10)",
           lambda: F.conv_transpose1d(torch.tensor([[[1.0, 0.0]]]), torch.tensor(weight)),
           lambda: jax.lax.conv_transpose(jnp.array([[[1.0], [0.0]]]), jnp.array([[[1.0]], [[10.0]]]), (1,), "VALID")[..., 0], None)  # fmt: skip
    yield ("batch normalisation in training, one value to a channel", lambda: F.batch_norm(torch.tensor([[3.0]]), None, None, training=True),
           lambda: jax.nn.standardize(jnp.array([[3.0]]), 0), lambda: rule(BatchNorm(affine=False), [3.0]))  # fmt: skip
    yield "variance of (1, 2, 3), by its default", lambda: torch.tensor([1.0, 2.0, 3.0]).var(), lambda: jnp.var(jnp.array([1.0, 2.0, 3.0])), None
    yield ("cross entropy, mean, every target ignored", lambda: F.cross_entropy(torch.zeros(1, 2), torch.tensor([-100])), None,
           lambda: h.CrossEntropyLoss().forward({}, np.zeros((1, 2)), np.array([-100]))[0])  # fmt: skip
    yield ("CTC, sum over the classes of the gradient with respect to what it takes (torch: log-probabilities; reference: logits)",
           lambda: grad(_ctc, LOGITS.tolist()).sum(-1), None,
           lambda: CTCLoss(reduction="sum").forward({}, LOGITS, np.array([[1]]))[1](1.0).sum(-1))  # fmt: skip
    yield ("the same, the true derivative with respect to log-probabilities: -1 in each frame",
           lambda: (grad(_ctc, LOGITS.tolist()) - torch.tensor(np.exp(LOGITS))).sum(-1), None, None)  # fmt: skip
    yield ("embedding of index 2 where there are 2", lambda: F.embedding(torch.tensor([2]), torch.ones(2, 1)),
           lambda: jnp.take(jnp.ones((2, 1)), jnp.array([2]), axis=0), lambda: rule(Embedding(2, 1), 2, params={"weight": [[1.0], [1.0]]}))  # fmt: skip


HEADER = f"""\
# Where torch, jax and the reference differ and none is wrong

Generated by `{COMMAND}`; do not edit. Measured on {{versions}}, run eagerly in float64 where nothing else is said.

## At kinks and ties

The gradient at the point, for an upstream gradient of ones; weights are 0.25 (of the recurrent layer 0). A row stands here where torch, jax or
the reference's own choice lies outside the rounding bound of the others. Whether an answer is a subgradient is checked by the hull that
the reference's rule gives.
"""


def main() -> None:
    """Write the page."""
    found = list(at_kinks())
    same = ", ".join(dict.fromkeys(row[0] for row, alike in found if alike))
    rows, count = scanned()
    parts = [HEADER.format(versions=versions()).rstrip(),
             table(("layer", "at", "tensor", "torch", "jax", "reference", ""), [row for row, alike in found if not alike]).rstrip(),
             f"The same in all three: {same}.",
             "Functions without a layer of their own here, in float32:",
             table(("derivative of", "at", "torch", "jax"), [[f"`{name}`", shown(x), answer(lambda f=f, x=x: grad(f, *x) if len(x) == 1 else grad(f, x)),
                   answer(lambda g=g, x=x: jgrad(g, *x) if len(x) == 1 else jgrad(g, x))] for name, f, g, x in NAMELESS]).rstrip(),
             "## Everything at zeros and ties",
             f"Every layer and head (with kinks: on every example, else on the first) on inputs of zeros, of equal numbers, and of the numbers -1, 0, "
             f"1/2, 1; {count} points. What is not listed lies within the rounding bound of the reference's own choice.",
             table(("layer", "inputs", "framework", "tensor", "differs by", "points"), rows).rstrip(),
             "## Beyond kinks",
             table(("what", "torch", "jax", "reference"), [[what, *("-" if f is None else answer(f) for f in asked)]
                   for what, *asked in behaviours()])]  # fmt: skip
    TARGET.write_text("\n\n".join(parts).rstrip() + "\n", encoding="utf-8")
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
