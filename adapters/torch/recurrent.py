"""PyTorch: the recurrent layers, by the modules' functional form; the GRU of the paper has no operator and is written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from backproof.reference import recurrent as R
from torch import Tensor

Params = dict[str, Tensor]


def rnn(layer: Any, params: Params, x: Tensor, *states: Tensor) -> Any:
    module = torch.nn.RNN(x.shape[-1], layer.hidden_size, layer.num_layers, nonlinearity=layer.nonlinearity, bias=layer.bias,
                          batch_first=True, bidirectional=layer.bidirectional, device="meta", dtype=x.dtype)  # fmt: skip
    h_0 = states[0].transpose(0, 1).contiguous() if states else None
    output, h_n = torch.func.functional_call(module, params, (x, h_0))
    return (output, h_n.transpose(0, 1)) if states else output


def gru(layer: Any, params: Params, x: Tensor, *states: Tensor) -> Any:
    if layer.reset_after:
        module = torch.nn.GRU(x.shape[-1], layer.hidden_size, layer.num_layers, bias=layer.bias, batch_first=True,
                              bidirectional=layer.bidirectional, device="meta", dtype=x.dtype)  # fmt: skip
        h_0 = states[0].transpose(0, 1).contiguous() if states else None
        output, h_n = torch.func.functional_call(module, params, (x, h_0))
        return (output, h_n.transpose(0, 1)) if states else output
    finals = []
    for k in range(layer.num_layers):
        halves = []
        for suffix in (f"_l{k}", f"_l{k}_reverse")[: 1 + layer.bidirectional]:
            h = states[0][:, len(finals)] if states else x.new_zeros(len(x), layer.hidden_size)
            rz, n = params[f"weight_hh{suffix}"].split((2 * layer.hidden_size, layer.hidden_size))
            b_rz, b_n = params[f"bias_hh{suffix}"].split((2 * layer.hidden_size, layer.hidden_size)) if layer.bias else (None, None)
            steps = F.linear(x, params[f"weight_ih{suffix}"], params.get(f"bias_ih{suffix}")).unbind(1)
            hs = []
            for a in steps[::-1] if "reverse" in suffix else steps:
                r, z = torch.sigmoid(a[:, : 2 * layer.hidden_size] + F.linear(h, rz, b_rz)).chunk(2, -1)
                h = (1 - z) * torch.tanh(a[:, 2 * layer.hidden_size :] + F.linear(r * h, n, b_n)) + z * h
                hs.append(h)
            finals.append(h)
            halves.append(torch.stack(hs[::-1] if "reverse" in suffix else hs, 1))
        x = torch.cat(halves, -1)
    return (x, torch.stack(finals, 1)) if states else x


def lstm(layer: Any, params: Params, x: Tensor, *states: Tensor) -> Any:
    module = torch.nn.LSTM(x.shape[-1], layer.hidden_size, layer.num_layers, bias=layer.bias, batch_first=True,
                           bidirectional=layer.bidirectional, device="meta", dtype=x.dtype)  # fmt: skip
    start = tuple(state.transpose(0, 1).contiguous() for state in states) or None
    output, last = torch.func.functional_call(module, params, (x, start))
    return (output, *(state.transpose(0, 1) for state in last)) if states else output


LOWERINGS: dict[type, Callable[..., Any]] = {R.RNN: rnn, R.GRU: gru, R.LSTM: lstm}
