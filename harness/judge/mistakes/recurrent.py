"""Mistakes in recurrent layers: a path through time cut, a gate forgotten or mistaken for another, a state ignored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from backproof.judge.mistakes.mistake import FaultyRule, Mistake, faulty
from backproof.reference.layer import Backward, Params
from backproof.reference.recurrent import GRU, LSTM, RNN, Recurrent
from backproof.reference.rounding import Array
from backproof.reference.unrolling import Pulled, Weights, unrolled

__all__ = ["MISTAKES"]

EVERY = (RNN, GRU, LSTM)
Step = tuple[Weights, tuple[Array, ...], tuple[Array, ...], Pulled]
"""One time step of a backward: the weights, the state after it, the gradient of that state and what the right pullback gives."""


def _mistake(code: str, sentence: str, of: tuple[type, ...], tensors: Callable[[Any], set[str]], rule: FaultyRule) -> Mistake:
    """Return the mistake of a faulty rule in the tensors that it changes, which depend on the layer's options."""
    return faulty(code, sentence, of, lambda step: tensors(step.layer), rule)


# Which tensors of a layer a mistake changes.


def _parameters(layer: Recurrent, *kinds: str) -> set[str]:
    return {f"d{kind}{suffix}" for kind in kinds for directions in layer.suffixes for suffix in directions}


def _initial(layer: Recurrent) -> set[str]:
    return {f"d{name}" for name in layer.input_names[1:]}


def _gradients(layer: Recurrent) -> set[str]:
    return {"dx"} | _initial(layer) | _parameters(layer, "weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _gradients_with_states(layer: Recurrent) -> set[str]:
    return _gradients(layer) if layer.states else set()


def _before_reverse(layer: Recurrent) -> set[str]:
    """Return what the gradient of the last layer's reverse direction flows into: not that layer's own forward direction."""
    if not layer.bidirectional:
        return set()
    return {name for name in _gradients(layer) if not name.endswith(f"_l{layer.num_layers - 1}")}


def _hidden_weights(layer: Recurrent) -> set[str]:
    return _parameters(layer, "weight_hh")


def _hidden_biases(layer: GRU) -> set[str]:
    return _parameters(layer, "bias_hh") if layer.reset_after and layer.bias else set()


# Rules with one thing changed in every time step.


def _stepwise(change: Callable[[Step], Pulled]) -> FaultyRule:
    def rule(layer: Any, params: Params, *inputs: Array) -> tuple[Any, Backward]:
        def cell(weights: Weights, x: Array, state: tuple[Array, ...]) -> Any:
            after, pullback = layer.cell(weights, x, state)

            def wrong(*dstate: Array) -> Pulled:
                return change((weights, after, dstate, pullback(*dstate)))

            return after, wrong

        return unrolled(layer, params, inputs, cell)

    return rule


def _preactivations(step: Step, d_input: Array, d_hidden: Array) -> Pulled:
    """Return the pulled gradients with other ones at the gates."""
    weights, _, _, pulled = step
    gates = sum(weight.shape[0] for _, weight in pulled.products) // weights.hh.shape[-2]  # that W_hh h goes to
    return replace(pulled, d_input=d_input, d_hidden=d_hidden, products=weights.gate(slice(gates)).from_hidden(d_hidden[:gates]))


def _cut(step: Step) -> Pulled:
    _, _, dstate, pulled = step
    return replace(pulled, products=[], terms=(dstate[0] * 0,), cell=tuple(dc * 0 for dc in pulled.cell))


def _hidden_after(step: Step) -> Pulled:
    _, after, _, pulled = step
    return replace(pulled, operand=after[0])


def _slope_missing(step: Step) -> Pulled:
    d = step[2][0][None]
    return _preactivations(step, d, d)


def _swapped(step: Step) -> Pulled:
    pulled = step[3]
    order = [1, 0, *range(2, len(pulled.d_input))]
    return _preactivations(step, pulled.d_input[order], pulled.d_hidden[order])


def _direct_path_dropped(step: Step) -> Pulled:
    pulled = step[3]
    return replace(pulled, terms=(pulled.terms[0] * 0, *pulled.terms[1:]))


def _forget_gate_dropped(step: Step) -> Pulled:
    pulled = step[3]
    kept = np.array([1, 0, 1, 1]).reshape((4, 1, 1))
    return _preactivations(step, pulled.d_input * kept, pulled.d_hidden * kept)


def _cell_path_dropped(step: Step) -> Pulled:
    pulled = step[3]
    return replace(pulled, cell=tuple(dc * 0 for dc in pulled.cell))


# Rules with one thing changed before or after the whole backward.


def _upstream(change: Callable[..., tuple[Array, ...]]) -> FaultyRule:
    def rule(layer: Any, params: Params, *inputs: Array) -> tuple[Any, Backward]:
        y, right = layer.forward(params, *inputs)

        def backward(*dys: Array) -> tuple[Any, dict[str, Array]]:
            return right(*change(layer, *dys))

        return y, backward

    return rule


def _last_step_only(_: Any, doutput: Array, *dlast: Array) -> tuple[Array, ...]:
    time = doutput.shape[1]
    return doutput * (np.arange(time) == time - 1).astype(int).reshape((-1, 1)), *dlast


def _not_reversed(layer: Any, doutput: Array, *dlast: Array) -> tuple[Array, ...]:
    forward, reverse = doutput[..., : layer.hidden_size], doutput[..., layer.hidden_size :]
    return np.concatenate([forward, np.flip(reverse, axis=1)], axis=-1), *dlast


def _final_ignored(_: Any, doutput: Array, *dlast: Array) -> tuple[Array, ...]:
    return doutput, *(d * 0 for d in dlast)


def _initial_missing(layer: Any, params: Params, *inputs: Array) -> tuple[Any, Backward]:
    y, right = layer.forward(params, *inputs)

    def backward(*dys: Array) -> tuple[Any, dict[str, Array]]:
        (dx, *dstates), dparams = right(*dys)
        return (dx, *(d * 0 for d in dstates)), dparams

    return y, backward


def _bias_outside_reset(layer: Any, params: Params, *inputs: Array) -> tuple[Any, Backward]:
    y, right = layer.forward(params, *inputs)
    candidate = 2 * layer.hidden_size

    def backward(*dys: Array) -> tuple[Any, dict[str, Array]]:
        dx, dparams = right(*dys)
        wrong = {name: np.concatenate([d[:candidate], dparams[name.replace("hh", "ih")][candidate:]], axis=0)
                 for name, d in dparams.items() if name.startswith("bias_hh")}
        return dx, {**dparams, **wrong}

    return y, backward


MISTAKES: tuple[Mistake, ...] = (
    _mistake("time-cut", "{tensor} lacks what comes from later time steps: the gradient is not carried through the state",
             EVERY, _gradients, _stepwise(_cut)),
    _mistake("last-step-only", "{tensor} takes the upstream gradient of the last time step alone", EVERY, _gradients,
             _upstream(_last_step_only)),
    _mistake("direction-not-reversed", "{tensor} reads the reverse direction's upstream gradient from the first time step to the last",
             EVERY, _before_reverse, _upstream(_not_reversed)),
    _mistake("hidden-state-after", "{tensor} takes h_t, the state after the time step, in place of h_(t-1)", EVERY, _hidden_weights,
             _stepwise(_hidden_after)),
    _mistake("initial-state-missing", "{tensor} is zero: the initial state is held constant", EVERY, _initial, _initial_missing),
    _mistake("final-state-ignored", "{tensor} ignores the upstream gradient of the final state", EVERY, _gradients_with_states,
             _upstream(_final_ignored)),
    _mistake("cell-slope-missing", "{tensor} lacks g'(a_t): the gradient of h_t is taken for that of a_t", (RNN,), _gradients,
             _stepwise(_slope_missing)),
    _mistake("gates-swapped", "{tensor} has the gradients of the first two gates swapped (r and z of a GRU, i and f of an LSTM)",
             (GRU, LSTM), _gradients, _stepwise(_swapped)),
    _mistake("update-path-dropped", "{tensor} lacks dh_t z_t, the direct path from h_t to h_(t-1)", (GRU,), _gradients,
             _stepwise(_direct_path_dropped)),
    _mistake("hidden-bias-outside-reset", "{tensor} lacks the factor r_t: b_hn is taken out of the reset gate's product", (GRU,),
             _hidden_biases, _bias_outside_reset),
    _mistake("forget-gate-dropped", "{tensor} lacks the gradient of the forget gate", (LSTM,), _gradients,
             _stepwise(_forget_gate_dropped)),
    _mistake("cell-path-dropped", "{tensor} lacks dc_(t+1) f_(t+1): the cell state's gradient is not carried back", (LSTM,), _gradients,
             _stepwise(_cell_path_dropped)),
)
