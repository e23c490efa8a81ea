"""What torch, jax and the reference do differently beyond kinks: defaults, refusals, edges; each asked, not typed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from backproof.adapters import jax as jax_adapter
from backproof.reference import activations as a
from backproof.reference import heads as h
from backproof.reference import pooling as p
from backproof.reference.attention import ScaledDotProductAttention
from backproof.reference.convolution import Conv1d
from backproof.reference.ctc import CTCLoss
from backproof.reference.indexing import Embedding
from backproof.reference.normalization import BatchNorm
from backproof.wording import said

__all__ = ["asked", "nameless", "shown"]


def shown(value: Any) -> str:
    """Return numbers as short text, several in brackets."""
    array = np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)
    if array.ndim == 0:
        return f"{float(array) + 0.0:.6g}"
    return f"({', '.join(shown(item) for item in array)})" if len(array) > 1 else shown(array[0])


def answer(function: Callable[[], Any]) -> str:
    """Return what a call gives, or what it raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return shown(function())
    except Exception as error:  # noqa: BLE001  (a refusal is an answer)
        return f"refused: {said(error)[:170]}".replace("|", "\\|")


def grad(function: Callable[[Any], Any], x: Any) -> Any:
    """Return torch's gradient of a sum."""
    leaf = torch.tensor(x, requires_grad=True)
    function(leaf).sum().backward()
    return leaf.grad


def jgrad(function: Callable[[Any], Any], x: Any) -> Any:
    """Return jax's gradient of a sum."""
    return jax.grad(lambda leaf: jnp.sum(function(leaf)))(jnp.array(x))


def rule(layer: Any, *x: Any, params: dict[str, Any] | None = None) -> Any:
    """Return the output of a rule for one example."""
    return layer.forward({name: np.array(v) for name, v in (params or {}).items()}, *(np.array([v]) for v in x))[0][0]


NAMELESS: tuple[tuple[str, Callable[[Any], Any], Callable[[Any], Any], list[float]], ...] = (
    ("abs(x)", torch.abs, jnp.abs, [0.0]),
    ("sqrt(x)", torch.sqrt, jnp.sqrt, [0.0]), ("norm(x)", torch.linalg.norm, jnp.linalg.norm, [0.0, 0.0]),
    ("std(x)", torch.std, jnp.std, [1.0, 1.0]),
    ("maximum(x, 0)", lambda x: torch.maximum(x, 0 * x.detach()), lambda x: jnp.maximum(x, 0), [0.0]),
    ("clip(x, 0, 6)", lambda x: torch.clamp(x, 0, 6), lambda x: jnp.clip(x, 0, 6), [0.0, 6.0]),
    ("max of all", torch.max, jnp.max, [1.0, 1.0]),
    ("max along axis 0", lambda x: torch.max(x, 0).values, lambda x: jnp.max(x, 0), [1.0, 1.0]),
    ("median(x)", torch.median, jnp.median, [1.0, 2.0]),
)

STEPS = (np.array([[[2.0**-10], [0.0]]]), np.array([[[0.0], [2.0**-10]]]))
LOGITS = np.log(np.array([[[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]]))
ONES, FOUR = [[1.0] * 6], [[1.0, 2.0, 3.0, 4.0]]


def _attention_rows() -> tuple[Callable[[], Any], ...]:
    q, k, v, mask = np.ones((1, 1, 1)), np.array([[[1.0], [2.0]]]), np.array([[[3.0], [5.0]]]), np.array([[False, False]])
    layer = ScaledDotProductAttention(mask="boolean")
    return (lambda: F.scaled_dot_product_attention(*map(torch.tensor, (q, k, v)), attn_mask=torch.tensor(mask))[0, 0],
            lambda: jax.nn.dot_product_attention(*(jnp.array(x)[:, :, None] for x in (q, k, v)), mask=mask[None, None])[0, 0, 0],
            lambda: layer.forward({"attn_mask": mask}, q, k, v)[0][0, 0])


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
           lambda: rule(p.AvgPool1d(3, stride=2, ceil_mode=True), ONES))
    yield ("the same with padding 1: the padding counts in the divisor, what lies beyond it does not",
           lambda: F.avg_pool1d(torch.tensor([ONES]), 3, 2, padding=1, ceil_mode=True), None,
           lambda: rule(p.AvgPool1d(3, stride=2, padding=1, ceil_mode=True), ONES))
    weight = [[[1.0, 10.0]]]
    yield ('`padding="same"`, even kernel (1, 10) over (1, 2, 3, 4)',
           lambda: F.conv1d(torch.tensor([FOUR]), torch.tensor(weight), padding="same"),
           lambda: jax.lax.conv(jnp.array([FOUR]), jnp.array(weight), (1,), "SAME"),
           lambda: rule(Conv1d(1, 2, padding="same", bias=False), FOUR, params={"weight": weight}))
    yield ("the same with stride 2", lambda: F.conv1d(torch.tensor([FOUR]), torch.tensor(weight), stride=2, padding="same"),
           lambda: jax.lax.conv(jnp.array([FOUR]), jnp.array(weight), (2,), "SAME"),
           lambda: rule(Conv1d(1, 2, stride=2, padding="same", bias=False), FOUR, params={"weight": weight}))
    yield ("transposed convolution of (1, 0) with the kernel (1, 10)",
           lambda: F.conv_transpose1d(torch.tensor([[[1.0, 0.0]]]), torch.tensor(weight)),
           lambda: jax.lax.conv_transpose(jnp.array([[[1.0], [0.0]]]), jnp.array([[[1.0]], [[10.0]]]), (1,), "VALID")[..., 0],
           None)
    yield ("batch normalisation in training, one value to a channel",
           lambda: F.batch_norm(torch.tensor([[3.0]]), None, None, training=True),
           lambda: jax.nn.standardize(jnp.array([[3.0]]), 0), lambda: rule(BatchNorm(affine=False), [3.0]))
    yield ("variance of (1, 2, 3), by its default", lambda: torch.tensor([1.0, 2.0, 3.0]).var(),
           lambda: jnp.var(jnp.array([1.0, 2.0, 3.0])), None)
    yield ("cross entropy, mean, every target ignored (jax: by the lowering)",
           lambda: F.cross_entropy(torch.zeros(1, 2), torch.tensor([-100])),
           lambda: jax_adapter.HEADS[h.CrossEntropyLoss](h.CrossEntropyLoss(), jnp.zeros((1, 2)), jnp.array([-100])),
           lambda: h.CrossEntropyLoss().forward({}, np.zeros((1, 2)), np.array([-100]))[0])
    yield ("CTC, sum over the classes of the gradient with respect to what it takes (torch: log-probabilities; reference: logits)",
           lambda: np.round(grad(_ctc, LOGITS.tolist()).sum(-1), 12), None,
           lambda: np.round(CTCLoss(reduction="sum").forward({}, LOGITS, np.array([[1]]))[1](1.0).sum(-1), 12))
    yield ("the same, by difference quotients of torch's loss",
           lambda: [float(_ctc(torch.tensor(LOGITS + step)) - _ctc(torch.tensor(LOGITS))) * 2**10 for step in STEPS],
           None, None)
    yield ("embedding of index 2 where there are 2", lambda: F.embedding(torch.tensor([2]), torch.ones(2, 1)),
           lambda: jnp.take(jnp.ones((2, 1)), jnp.array([2]), axis=0),
           lambda: rule(Embedding(2, 1), 2, params={"weight": [[1.0], [1.0]]}))


def nameless() -> list[list[str]]:
    """Return a row for each function without a layer: its derivative at a point on torch and on jax."""
    with jax.enable_x64(new_val=True):
        return [[f"`{name}`", shown(x), answer(lambda f=f, x=x: grad(f, x)), answer(lambda g=g, x=x: jgrad(g, x))]
                for name, f, g, x in NAMELESS]


def asked() -> list[list[str]]:
    """Return a row for each behaviour: what was asked, and what torch, jax and the reference answer."""
    with jax.enable_x64(new_val=True):
        return [[what, *("-" if f is None else answer(f) for f in functions)] for what, *functions in behaviours()]
