"""PyTorch: the recurrent layers, by the operators behind `torch.nn.RNN`, `GRU` and `LSTM`; the paper's GRU has none and is written out.

A module built in the lowering and run by `torch.func.functional_call` does the same, but `torch.compile` cannot trace it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from backproof.reference import recurrent as R
from torch import Tensor

Params = dict[str, Tensor]


def rnn(layer: Any, params: Params, x: Tensor, *states: Tensor) -> Any:
    directions = ("", "_reverse")[: 1 + layer.bidirectional]
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if layer.bias else 2]
    flat = [params[f"{kind}_l{k}{d}"] for k in range(layer.num_layers) for d in directions for kind in kinds]
    h_0 = states[0].transpose(0, 1).contiguous() if states else x.new_zeros(len(flat) // len(kinds), x.shape[0], layer.hidden_size)
    operator = torch.rnn_tanh if layer.nonlinearity == "tanh" else torch.rnn_relu
    output, h_n = operator(x, h_0, flat, has_biases=layer.bias, num_layers=layer.num_layers, dropout=0.0, train=True,
                           bidirectional=layer.bidirectional, batch_first=True)
    return (output, h_n.transpose(0, 1)) if states else output


def gru(layer: Any, params: Params, x: Tensor, *states: Tensor) -> Any:
    directions = ("", "_reverse")[: 1 + layer.bidirectional]
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if layer.bias else 2]
    if layer.reset_after:
        flat = [params[f"{kind}_l{k}{d}"] for k in range(layer.num_layers) for d in directions for kind in kinds]
        h_0 = states[0].transpose(0, 1).contiguous() if states else x.new_zeros(len(flat) // len(kinds), x.shape[0], layer.hidden_size)
        output, h_n = torch.gru(x, h_0, flat, has_biases=layer.bias, num_layers=layer.num_layers, dropout=0.0, train=True,
                                bidirectional=layer.bidirectional, batch_first=True)
        return (output, h_n.transpose(0, 1)) if states else output
    finals: list[Tensor] = []
    for k in range(layer.num_layers):
        halves = []
        for suffix in (f"_l{k}{d}" for d in directions):
            h = states[0][:, len(finals)] if states else x.new_zeros(x.shape[0], layer.hidden_size)
            w_r, w_z, w_n = params[f"weight_hh{suffix}"].chunk(3)
            b_r, b_z, b_n = params[f"bias_hh{suffix}"].chunk(3) if layer.bias else (None, None, None)
            hs = []
            for x_t in x.flip(1).unbind(1) if "reverse" in suffix else x.unbind(1):
                a_r, a_z, a_n = F.linear(x_t, params[f"weight_ih{suffix}"], params.get(f"bias_ih{suffix}")).chunk(3, -1)
                r, z = torch.sigmoid(a_r + F.linear(h, w_r, b_r)), torch.sigmoid(a_z + F.linear(h, w_z, b_z))
                h = (1 - z) * torch.tanh(a_n + F.linear(r * h, w_n, b_n)) + z * h
                hs.append(h)
            finals.append(h)
            halves.append(torch.stack(hs[::-1] if "reverse" in suffix else hs, 1))
        x = torch.cat(halves, -1)
    return (x, torch.stack(finals, 1)) if states else x


def lstm(layer: Any, params: Params, x: Tensor, *states: Tensor) -> Any:
    directions = ("", "_reverse")[: 1 + layer.bidirectional]
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if layer.bias else 2]
    flat = [params[f"{kind}_l{k}{d}"] for k in range(layer.num_layers) for d in directions for kind in kinds]
    zeros = x.new_zeros(len(flat) // len(kinds), x.shape[0], layer.hidden_size)
    start = [state.transpose(0, 1).contiguous() for state in states] or [zeros, zeros]
    output, *last = torch.lstm(x, start, flat, has_biases=layer.bias, num_layers=layer.num_layers, dropout=0.0, train=True,
                               bidirectional=layer.bidirectional, batch_first=True)
    return (output, *(state.transpose(0, 1) for state in last)) if states else output


LOWERINGS: dict[type, Callable[..., Any]] = {R.RNN: rnn, R.GRU: gru, R.LSTM: lstm}
