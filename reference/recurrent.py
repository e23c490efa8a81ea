"""Recurrent layers: the same cell at every time step, its state handed on, and the gradient carried back through time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from backproof.reference.functions import sigmoid, sigmoid_complement, sum_of_products
from backproof.reference.gate_functions import mixed, mixed_pullback, tanh_slope
from backproof.reference.layer import Backward, Example, Layer, Params, Shape, ShapeError, register
from backproof.reference.rounding import Array
from backproof.reference.unrolling import Pulled, Retraced, State, Weights, unrolled

__all__ = ["GRU", "LSTM", "RNN", "Recurrent"]


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
