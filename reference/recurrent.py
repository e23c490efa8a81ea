"""Recurrent layers: the same cell at every time step, its state handed on, and the gradient carried back through time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, ClassVar

import numpy as np
from backproof.reference.direction import Directed
from backproof.reference.functions import sigmoid, sigmoid_complement, sum_of_products
from backproof.reference.layer import Backward, Example, Layer, Params, Shape, ShapeError, register
from backproof.reference.rounding import Array, Rounded, either, largest_of, most_of, quiet

__all__ = ["GRU", "LSTM", "RNN", "Cell", "Pulled", "Recurrent", "Weights", "unrolled"]

SATURATED = 20  # past it 1 - tanh^2 is below half an ulp of 1 in every format up to float64

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


class Recurrent(Layer):
    """What the recurrent layers share: configuration, shapes, and the way through layers, directions and time."""

    hidden_size: int
    num_layers: int
    bias: bool
    bidirectional: bool
    states: bool
    gates: ClassVar[int]
    carried: ClassVar[tuple[str, ...]] = ("h",)
    stepwise = True

    @property
    def input_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("x", *(f"{name}_0" for name in self.carried)) if self.states else ("x",)

    @property
    def output_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("output", *(f"{name}_n" for name in self.carried)) if self.states else ("output",)

    @property
    def suffixes(self) -> tuple[tuple[str, ...], ...]:
        """What the parameters' names end in, by layer and direction."""
        directions = ("", "_reverse") if self.bidirectional else ("",)
        return tuple(tuple(f"_l{k}{direction}" for direction in directions) for k in range(self.num_layers))

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{type(self).__name__}: wrong {name}: got {getattr(self, name)}, expected at least 1")

    def parameters(self, shape: Shape, *_: Any) -> dict[str, Shape]:
        found: dict[str, Shape] = {}
        features, rows = shape[-1], self.gates * self.hidden_size
        for layer in self.suffixes:
            for suffix in layer:
                found |= {f"weight_ih{suffix}": (rows, features), f"weight_hh{suffix}": (rows, self.hidden_size)}
                found |= {f"bias_ih{suffix}": (rows,), f"bias_hh{suffix}": (rows,)} if self.bias else {}
            features = len(layer) * self.hidden_size
        return found

    def output_shape(self, shape: Shape, *states: Shape) -> Any:
        if len(shape) != 2 or min(shape) < 1:
            raise ShapeError(self, shape, "(time, features), both at least 1")
        directions = len(self.suffixes[0])
        state = (self.num_layers * directions, self.hidden_size)
        for got in states:
            if got != state:
                raise ShapeError(self, got, f"{state} of a state: (layers * directions, hidden)")
        output = (shape[0], directions * self.hidden_size)
        return (output, *(state for _ in self.carried)) if self.states else output

    def weights(self, params: Params, suffix: str) -> Weights:
        """Return the parameters of one direction of one layer, gate by gate."""
        by_gate = (self.gates, self.hidden_size)
        matrices = [params[name + suffix].reshape((*by_gate, -1)) for name in ("weight_ih", "weight_hh")]
        biases = [params[name + suffix].reshape((self.gates, 1, -1)) for name in ("bias_ih", "bias_hh")] if self.bias else []
        return Weights(*matrices, *biases)

    @abstractmethod
    def cell(self, weights: Weights, x: Array, state: State) -> tuple[State, Callable[..., Pulled]]:
        """Return the state after one time step, the hidden state first, and `pullback(*dstate)`."""

    def forward(self, params: Params, *inputs: Array) -> tuple[Any, Backward]:
        return unrolled(self, params, inputs, self.cell)

    def retraced(self, outputs: tuple[Array, ...], reach: int, params: Params, *inputs: Array) -> tuple[Any, Backward]:
        return unrolled(self, params, inputs, self.cell, Retraced(outputs[0], reach))


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


def tanh_slope(a: Array, y: Array) -> Array:
    """The derivative 1 - y^2 of y = tanh a: 4 s(2a) s(-2a) keeps its digits where y is close to 1.

    In rounded arithmetic the ball of 1 - y^2 holds that too. Where all of a is past 20 implementations have y = +-1 and the slope 0;
    but jax writes dy (1 - y^2) as (dy + dy y)(1 - y), which is 2 (dy - dy) on the left, and where dy is a product that a fused
    multiply-add rounds once and not twice, this leaves its rounding.
    """
    if not isinstance(a, Rounded):
        sound = 4 * (sigmoid(2 * a) * sigmoid(-2 * a))
        return either(sound, 1 - y * y) if isinstance(a, Directed) else sound
    slope, least = 1 - y * y, np.abs(a.value) - a.bound
    flat = least > SATURATED
    if not flat.any():
        return slope
    reach = 4 * np.exp(-2 * np.where(flat, least, SATURATED)) + np.where(a.value < 0, 2 * a.arithmetic.roundoff, 0)
    return Rounded(np.where(flat, 0, slope.value), np.where(flat, reach, slope.bound), a.arithmetic)


def mixed(left: Array, z: Array, n: Array, h: Array) -> Array:
    """left n + z h, with left = 1 - z: the mean of n and h by the weight z. Implementations also form n + z (h - n)."""
    if not isinstance(z, Rounded):
        return left * n + z * h
    arithmetic = z.arithmetic
    n, h = arithmetic.lift(n), arithmetic.lift(h)
    with quiet():
        value = left.value * n.value + z.value * h.value
        # n' + z'(h' - n') - n - z (h - n) = (1 - z')(n' - n) + z'(h' - h) + (z' - z)(h - n)
        most_n, most_z, most_h = most_of(n), most_of(z), most_of(h)
        spread = most_of(left) * n.bound + most_z * h.bound
        spread += np.abs(h.value - n.value) * np.maximum(z.bound, left.bound)
        magnitude = most_n + most_z * (most_h + most_n)
    return rounded_more(Rounded(value, spread, arithmetic), 3, magnitude)  # in either form each term meets three roundings at most


def rounded_more(ball: Array, roundings: int, magnitude: Any) -> Array:
    """Return a ball widened by the rounding of an equal expression, whose terms sum to `magnitude` and meet so many roundings each.

    Unlike `either`, which carries the bounds of the operands through that expression too, as if its terms were independent.
    """
    arithmetic = ball.arithmetic
    growth = arithmetic.gamma(roundings, arithmetic.roundoff)
    with quiet():
        bound = magnitude * growth
        bound += ball.bound
        bound += (roundings + 1) * (1 + growth) * arithmetic.precision.underflow
        if largest_of(magnitude) < arithmetic.safe and largest_of(bound) < arithmetic.safe:
            return Rounded(ball.value, bound, arithmetic)
        return arithmetic.overflowing(ball.value, np.where(magnitude < arithmetic.safe, bound, np.inf))


def mixed_pullback(dy: Array, left: Array, z: Array, n: Array, h: Array) -> tuple[Array, Array, Array]:
    """Return the gradients of z, n and h through `mixed`, in whichever form it is differentiated."""
    dz, dn, dh = dy * (h - n), dy * left, dy * z
    if not isinstance(dz, Rounded):
        return dz, dn, dh
    dy, h = dz.arithmetic.lift(dy), dz.arithmetic.lift(h)
    with quiet():  # dy h - dy n, and dy - dy z
        most = most_of(dy)
        apart = most * (most_of(h) + most_of(n)), most * (1 + most_of(z))
    return rounded_more(dz, 2, apart[0]), rounded_more(dn, 2, apart[1]), dh


@register
@dataclass(frozen=True)
class RNN(Recurrent):
    """The Elman network: h_t = g(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), g the tanh or the ReLU.

    Formula       a_t = W_ih x_t + b_ih + W_hh h_(t-1) + b_hh, y_t = h_t = g(a_t)
                  The next of several layers reads y as its x. A second direction runs from the last time step to the first with
                  parameters of its own (`_reverse`), and y_t holds both, one after the other.
    Chain rule    h_t acts on y_t and on a_(t+1):
                  dh_t = dy_t + W_hh^T da_(t+1), at the last step dy_t + dh_n; da_t = dh_t g'(a_t), g' = 1 - h_t^2 of the tanh
                  dx_t = W_ih^T da_t, summed over both directions
                  dh_0 = W_hh^T da_1
                  dweight_ih_l0 = sum_t da_t x_t^T, over the batch too, and so in the other layers and directions
                  dweight_hh_l0 = sum_t da_t h_(t-1)^T
                  dbias_ih_l0 = sum_t da_t
                  dbias_hh_l0 = sum_t da_t
    Shapes        x (batch, time, features), y (batch, time, directions * hidden). With `states`, further inputs and outputs
                  h_0, h_n (batch, layers * directions, hidden): the state before the first step and after the last.
    Kinks         of the ReLU, where a = 0: any slope between 0 and 1 is valid; own choice 0.
    Source        Elman, *Finding Structure in Time*, Cognitive Science 14 (1990); Werbos, *Backpropagation Through Time*,
                  Proc. IEEE 78 (1990).
    """

    hidden_size: int
    num_layers: int = 1
    nonlinearity: str = "tanh"
    bias: bool = True
    bidirectional: bool = False
    states: bool = False
    gates: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nonlinearity not in {"tanh", "relu"}:
            raise ValueError(f"RNN: unknown nonlinearity: got {self.nonlinearity!r}, expected 'tanh' or 'relu'")

    def cell(self, weights: Weights, x: Array, state: State) -> tuple[State, Callable[..., Pulled]]:
        (h,) = state
        a = weights.preactivation(x, h)
        y = np.tanh(a) if self.nonlinearity == "tanh" else np.where(a > 0, a, 0)

        def pullback(dh: Array) -> Pulled:
            da = dh * tanh_slope(a, y) if self.nonlinearity == "tanh" else np.where(a > 0, dh, 0)
            return Pulled(da, da, h, weights.from_hidden(da))

        return (y[0],), pullback

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(2), (3, 2)
        yield cls(1), (1, 1)
        yield cls(2, nonlinearity="relu"), (3, 2)
        yield cls(2, num_layers=2, bias=False), (3, 3)
        yield cls(1, bidirectional=True), (2, 2)
        yield cls(2, num_layers=2, nonlinearity="relu", bidirectional=True, states=True), (2, 1), (4, 2)
        yield cls(2, states=True), (3, 1), (1, 2)


@register
@dataclass(frozen=True)
class GRU(Recurrent):
    """The gated recurrent unit: an update gate z mixes the state before with a candidate n, a reset gate r admits it to n.

    Formula       r_t = s(W_ir x_t + b_ir + W_hr h_(t-1) + b_hr), z_t likewise with W_iz, W_hz; q_t = W_hn h_(t-1) + b_hn
                  n_t = tanh(W_in x_t + b_in + r_t q_t) with `reset_after`, as cuDNN has it; without it, as in the paper,
                  n_t = tanh(W_in x_t + b_in + W_hn (r_t h_(t-1)) + b_hn)
                  y_t = h_t = (1 - z_t) n_t + z_t h_(t-1); layers and directions as in RNN. Gates are stored as r, z, n.
    Chain rule    dn_t = dh_t (1 - z_t), dz_t = dh_t (h_(t-1) - n_t)
                  da_n = dn_t (1 - n_t^2), da_z = dz_t z_t (1 - z_t), da_r = dr_t r_t (1 - r_t)
                  dr_t = da_n q_t and dq_t = da_n r_t with `reset_after`; else dr_t = p_t h_(t-1), p_t = W_hn^T da_n
                  dx_t = W_ir^T da_r + W_iz^T da_z + W_in^T da_n
                  dh_(t-1) = dy_(t-1) + dh_t z_t + W_hr^T da_r + W_hz^T da_z + W_hn^T dq_t, or p_t r_t in place of the last
                  dh_0 = dh_1 z_1 + W_hr^T da_r + W_hz^T da_z + W_hn^T dq_1
                  dweight_ih_l0 = sum_t da_t x_t^T for each gate, over the batch too, and so in the other layers and directions
                  dweight_hh_l0 = sum_t da_t h_(t-1)^T for r and z, sum_t dq_t h_(t-1)^T, or sum_t da_n (r_t h_(t-1))^T, for n
                  dbias_ih_l0 = sum_t da_t for each gate
                  dbias_hh_l0 = sum_t da_t for r and z, sum_t dq_t, or sum_t da_n, for n
    Shapes        x (batch, time, features), y (batch, time, directions * hidden); with `states` h_0, h_n as in RNN.
    Kinks         none.
    Source        Cho et al., *Learning Phrase Representations using RNN Encoder-Decoder*, EMNLP 2014, equations 5-8, whose z is
                  the 1 - z of the implementations.
    """

    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    bidirectional: bool = False
    reset_after: bool = True
    states: bool = False
    gates: ClassVar[int] = 3

    def cell(self, weights: Weights, x: Array, state: State) -> tuple[State, Callable[..., Pulled]]:
        (h,) = state
        gated, candidate = weights.gate(slice(0, 2)), weights.gate(2)
        a = gated.preactivation(x, h)
        s = sigmoid(a)
        r, z = s[0], s[1]
        biases = candidate.biases()
        if self.reset_after:
            q = sum_of_products(candidate.hidden_products(h), biases[1:])
            a_n = sum_of_products(candidate.input_products(x), (*biases[:1], r * q))
        else:
            reset = r * h
            a_n = candidate.preactivation(x, reset)
        n = np.tanh(a_n)
        left = sigmoid_complement(a[1], z)

        def pullback(dh: Array) -> Pulled:
            dz, dn, direct = mixed_pullback(dh, left, z, n, h)
            da_n = dn * tanh_slope(a_n, n)
            through: tuple[Array, ...] = ()
            if self.reset_after:
                dr, dq = da_n * q, da_n * r
            else:
                p = da_n @ candidate.hh
                dr, dq, through = p * h, da_n, (p * r,)
            ds = np.stack([dr, dz], axis=0) * (s * sigmoid_complement(a, s))
            d_hidden = np.concatenate([ds, dq[None]], axis=0)
            products = weights.from_hidden(d_hidden) if self.reset_after else gated.from_hidden(ds)
            operand = h if self.reset_after else np.stack([h, h, reset], axis=0)
            return Pulled(np.concatenate([ds, da_n[None]], axis=0), d_hidden, operand, products, (direct, *through))

        return (mixed(left, z, n, h),), pullback

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(2), (3, 2)
        yield cls(1), (1, 1)
        yield cls(2, reset_after=False), (3, 2)
        yield cls(2, num_layers=2, bias=False), (2, 3)
        yield cls(2, bias=False, reset_after=False), (2, 1)
        yield cls(1, bidirectional=True), (2, 2)
        yield cls(1, num_layers=2, bidirectional=True, states=True), (2, 1), (4, 1)
        yield cls(2, reset_after=False, states=True), (3, 1), (1, 2)


@register
@dataclass(frozen=True)
class LSTM(Recurrent):
    """Long short-term memory with a forget gate: a cell state c, written through the gates i, f and read through the gate o.

    Formula       a_t = W_ih x_t + b_ih + W_hh h_(t-1) + b_hh, gates stored as i, f, g, o
                  i_t = s(a_i), f_t = s(a_f), g_t = tanh(a_g), o_t = s(a_o)
                  c_t = f_t c_(t-1) + i_t g_t, y_t = h_t = o_t tanh c_t; layers and directions as in RNN
    Chain rule    dh_t = dy_t + W_hh^T da_(t+1), at the last step dy_t + dh_n
                  dc_t = dc_(t+1) f_(t+1) + dh_t o_t (1 - tanh^2 c_t), the first term dc_n at the last step
                  da_i = dc_t g_t i_t (1 - i_t), da_f = dc_t c_(t-1) f_t (1 - f_t), da_g = dc_t i_t (1 - g_t^2)
                  da_o = dh_t tanh(c_t) o_t (1 - o_t)
                  dx_t = W_ih^T da_t
                  dh_0 = W_hh^T da_1
                  dc_0 = dc_1 f_1
                  dweight_ih_l0 = sum_t da_t x_t^T, over the batch too, and so in the other layers and directions
                  dweight_hh_l0 = sum_t da_t h_(t-1)^T
                  dbias_ih_l0 = sum_t da_t
                  dbias_hh_l0 = sum_t da_t
    Shapes        x (batch, time, features), y (batch, time, directions * hidden). With `states`, further inputs and outputs
                  h_0, c_0, h_n, c_n (batch, layers * directions, hidden).
    Kinks         none.
    Source        Hochreiter, Schmidhuber, Neural Computation 9 (1997); Gers, Schmidhuber, Cummins, *Learning to Forget*, Neural
                  Computation 12 (2000), for the forget gate.
    """

    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    bidirectional: bool = False
    states: bool = False
    gates: ClassVar[int] = 4
    carried: ClassVar[tuple[str, ...]] = ("h", "c")

    def cell(self, weights: Weights, x: Array, state: State) -> tuple[State, Callable[..., Pulled]]:
        h, c = state
        a = weights.preactivation(x, h)
        gated = a[[0, 1, 3]]
        s, g = sigmoid(gated), np.tanh(a[2])
        i, f, o = s[0], s[1], s[2]
        c_next = f * c + i * g
        t = np.tanh(c_next)

        def pullback(dh: Array, dc_next: Array = 0) -> Pulled:
            dc = dc_next + dh * o * tanh_slope(c_next, t)
            ds = np.stack([dc * g, dc * c, dh * t], axis=0) * (s * sigmoid_complement(gated, s))
            da_g = dc * i * tanh_slope(a[2], g)
            da = np.concatenate([ds[:2], da_g[None], ds[2:]], axis=0)
            return Pulled(da, da, h, weights.from_hidden(da), (), (dc * f,))

        return (o * t, c_next), pullback

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(2), (3, 2)
        yield cls(1), (1, 1)
        yield cls(2, num_layers=2, bias=False), (2, 3)
        yield cls(1, bidirectional=True), (2, 2)
        yield cls(1, num_layers=2, bidirectional=True, states=True), (2, 1), (4, 1), (4, 1)
        yield cls(2, states=True), (3, 1), (1, 2), (1, 2)
