"""A cell through layers, directions and time: forward from state to state, backward with the gradient of the state carried back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from backproof.reference.direction import Directed
from backproof.reference.functions import sum_of_products
from backproof.reference.layer import Backward, Params
from backproof.reference.rounding import Array, Rounded, quiet

if TYPE_CHECKING:
    from backproof.reference.recurrent import Recurrent

__all__ = ["Cell", "Pulled", "Retraced", "State", "Weights", "unrolled"]

Products = list[tuple[Array, Array]]


@dataclass(frozen=True)
class Weights:
    """The parameters of one direction of one layer, gate by gate.

    `ih` is (gates, hidden, features), `hh` (gates, hidden, hidden), and the biases, unless there are none, (gates, 1, hidden).
    """

    ih: Array
    hh: Array
    bias_ih: Array | None = None
    bias_hh: Array | None = None

    def gate(self, which: int | slice) -> Weights:
        """Return the parameters of one gate, or of some, the same ones at every time step."""
        key = str(which)  # a slice has no hash before Python 3.12
        if key not in self._gates:
            self._gates[key] = Weights(*(None if a is None else a[which] for a in (self.ih, self.hh, self.bias_ih, self.bias_hh)))
        return self._gates[key]

    @cached_property
    def _gates(self) -> dict[str, Weights]:
        return {}

    @cached_property
    def _turned(self) -> tuple[Array, Array]:
        return np.swapaxes(self.ih, -1, -2), np.swapaxes(self.hh, -1, -2)

    def input_products(self, x: Array) -> Products:
        return [(x, self._turned[0])]

    def hidden_products(self, h: Array) -> Products:
        return [(h, self._turned[1])]

    def from_inputs(self, d: Array) -> Products:
        """Return the products that sum to the gradient of the input, from that of W_ih x by gates."""
        return _by_gates(d, self.ih)

    def from_hidden(self, d: Array) -> Products:
        """Return the products that sum to the gradient of what W_hh was applied to, from that of W_hh h by gates."""
        return _by_gates(d, self.hh, self._rows)

    @cached_property
    def _rows(self) -> Array:
        return self.hh.reshape((-1, self.hh.shape[-1]))

    def biases(self) -> list[Array]:
        return [] if self.bias_ih is None else [self.bias_ih, self.bias_hh]

    def preactivation(self, x: Array, h: Array) -> Array:
        """x W_ih^T + b_ih + h W_hh^T + b_hh, by gates: (gates, batch, hidden)."""
        return sum_of_products(self.input_products(x) + self.hidden_products(h), self.biases())


@dataclass(frozen=True)
class Pulled:
    """The gradients of one time step: of what W_ih and W_hh give (gates, batch, hidden), and of the state before.

    `operand` is what W_hh was applied to; the gradient of the hidden state before is the sum of `products` and `terms`, and
    `cell` holds the cell state's, where the layer has one.
    """

    d_input: Array
    d_hidden: Array
    operand: Array
    products: Products
    terms: tuple[Array, ...] = ()
    cell: tuple[Array, ...] = ()


State = tuple[Array, ...]
Cell = Callable[[Weights, Array, State], tuple[State, Callable[..., Pulled]]]
"""One time step: from the weights, x and the state to the next state and `pullback(*dstate)`."""


@dataclass(frozen=True)
class Retraced:
    """The output of an implementation, whose hidden states the time steps of the last layer go on from; see `Layer.retraced`."""

    output: Rounded
    reach: int

    def states(self, hidden: int, direction: int) -> list[Rounded]:
        """Return the hidden states of a direction, each as it may have been before it was stored."""
        own = self.output[..., direction * hidden : (direction + 1) * hidden]
        precision = own.arithmetic.precision
        if precision.wide:  # |stored - h| <= u |h| + underflow
            stored = np.abs(own.value) * (precision.store / (1 - precision.store)) + precision.underflow
            own = Rounded(own.value, own.bounds() + stored, own.arithmetic)
        return [own[:, t] for t in range(own.shape[1])]


def unrolled(layer: Recurrent, params: Params, inputs: Sequence[Array], cell: Cell,
             kept: Retraced | None = None) -> tuple[Any, Backward]:
    """Return the output of a recurrent layer made of some cell, and its backward: over layers, directions and time."""
    x, *initial = inputs
    batch, hidden, time = x.shape[0], layer.hidden_size, range(x.shape[1])
    # zeros are whole numbers, which leave rationals exact
    initial = initial or [np.zeros((batch, layer.num_layers * len(layer.suffixes[0]), hidden), dtype=int) for _ in layer.carried]
    places = [(k, d, suffix) for k, directions in enumerate(layer.suffixes) for d, suffix in enumerate(directions)]
    rows = [x[:, t] for t in time]
    finals, pullbacks, outputs = [], [], []
    for place, (k, d, suffix) in enumerate(places):
        start = tuple(state[:, place] for state in initial)
        own = _ordered(kept.states(hidden, d), d) if kept is not None and k == layer.num_layers - 1 else []
        ys, final, pullback = _direction(cell, layer.weights(params, suffix), _ordered(rows, d), start, own, kept.reach if kept else 0)
        outputs.append(_ordered(ys, d))
        finals.append(final)
        pullbacks.append(pullback)
        if len(outputs) == len(layer.suffixes[0]):
            rows, outputs = [np.concatenate(halves, axis=-1) for halves in zip(*outputs, strict=True)], []
    output = np.stack(rows, axis=1)
    last = tuple(np.stack(states, axis=1) for states in zip(*finals, strict=True))

    def backward(doutput: Array, *dlast: Array) -> tuple[Any, dict[str, Array]]:
        drows = np.moveaxis(doutput, 1, 0)
        dparams: dict[str, Array] = {}
        dinitial: list[State] = [()] * len(places)
        below: Products = []
        for place, (_, d, suffix) in reversed(list(enumerate(places))):
            mine = [drows[t, :, d * hidden : (d + 1) * hidden] for t in time]
            dins, dinitial[place], found = pullbacks[place](_ordered(mine, d), [state[:, place] for state in dlast])
            below += layer.weights(params, suffix).from_inputs(np.stack(_ordered(dins, d), axis=1))
            dparams |= {name + suffix: value for name, value in found.items()}
            if d == 0:
                drows, below = sum_of_products(below), []
        dx = np.moveaxis(drows, 0, 1)
        return (dx, *(np.stack(states, axis=1) for states in zip(*dinitial, strict=True))) if layer.states else dx, dparams

    return (output, *last) if layer.states else output, backward


def _ordered(rows: list[Any], direction: int) -> list[Any]:
    """Return time steps in the order in which a direction goes through them, and back again."""
    return rows[::-1] if direction else rows


def _direction(cell: Cell, weights: Weights, xs: list[Array], state: State, kept: Sequence[Rounded] = (),
               reach: int = 0) -> tuple[list[Array], State, Callable[..., Any]]:
    """Return the hidden states of one direction, its last state, and its backward.

    The backward returns the gradient of W_ih x at each time step, that of the initial state and those of the parameters.
    Where states were `kept`, each time step goes on from the one kept, which up to `reach` steps may have rounded otherwise.
    """
    hs, pullbacks = [], []
    again: list[State] = []  # the state by 1, 2, ... steps from an earlier one, as if that were exact
    for t, x in enumerate(xs):
        if t < len(kept) - 1 and reach:
            exact = tuple(s.arithmetic.exact(s.value) if isinstance(s, Rounded) else s for s in state)
            again = [cell(weights, x, start)[0] for start in (exact, *again)[:reach]]
        state, pullback = cell(weights, x, state)
        hs.append(state[0])
        pullbacks.append(pullback)
        if t < len(kept) - 1:
            state = (_rounded_again(kept[t], [h for h, *_ in again]), *state[1:])

    def backward(dhs: list[Array], dlast: Sequence[Array]) -> tuple[list[Array], State, dict[str, Array]]:
        products: Products = []
        terms, dcell = tuple(dlast[:1]), tuple(dlast[1:])
        pulled: list[Pulled] = []
        for pullback, dh in zip(reversed(pullbacks), reversed(dhs), strict=True):
            pulled.append(pullback(sum_of_products(products, (*terms, dh)), *dcell))
            products, terms, dcell = pulled[-1].products, pulled[-1].terms, pulled[-1].cell
        pulled.reverse()
        return [p.d_input for p in pulled], (sum_of_products(products, terms), *dcell), _parameters(weights, xs, pulled)

    return hs, state, backward


def _rounded_again(kept: Rounded, again: Sequence[Rounded]) -> Rounded:
    """Return a state as it was kept, or as it is rounded otherwise: either is no further from the exact one than a bound says."""
    if not again:
        return kept
    with quiet():
        return Rounded(kept.value, kept.bounds() + 2 * reduce(np.maximum, [h.bounds() for h in again]), kept.arithmetic)


def _parameters(weights: Weights, xs: list[Array], pulled: list[Pulled]) -> dict[str, Array]:
    """Return the gradients of the parameters: sums over the batch and over time, in which each parameter serves at every step."""
    width, ones = weights.ih.shape[-2], np.ones(xs[0].shape[0], dtype=int)
    found = {
        "weight_ih": sum_of_products([(np.swapaxes(p.d_input, -1, -2), x) for p, x in zip(pulled, xs, strict=True)]),
        "weight_hh": sum_of_products([(np.swapaxes(p.d_hidden, -1, -2), p.operand) for p in pulled]),
    }
    if weights.bias_ih is not None:
        found |= {"bias_ih": sum_of_products([(ones, p.d_input) for p in pulled]),
                  "bias_hh": sum_of_products([(ones, p.d_hidden) for p in pulled])}
    rows = weights.ih.shape[0] * width
    return {name: d.reshape((rows, -1) if name.startswith("weight") else (rows,)) for name, d in found.items()}


def _by_gates(d: Array, weight: Array, rows: Array = None) -> Products:
    """Return the products that sum to the gradient of what a weight was applied to.

    It is one product with the weight's rows, those of all gates; where sums are wider than what is stored, one for each gate.
    """
    if isinstance(d, (Rounded, Directed)) and d.arithmetic.precision.wide:
        return [(d[gate], weight[gate]) for gate in range(weight.shape[0])]
    rows = weight.reshape((-1, weight.shape[-1])) if rows is None else rows
    return [(np.moveaxis(d, 0, -2).reshape((*d.shape[1:-1], rows.shape[0])), rows)]
