"""With which options a layer is off: mistakes planted under a condition are found with that condition, and no rule is made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import backproof as bp
import pytest
from backproof.adapters import load
from backproof.proof.setting import Setting
from backproof.verify.options import options_that_decide, variants


class Mistaken:
    """The torch adapter whose gradients of a parameter or the input are doubled for the layers that `when` names."""

    name = "torch:mistaken"

    def __init__(self, when: Callable[[Any], bool], tensor: str) -> None:
        self.when, self.tensor = when, tensor

    def run(self, case: bp.Case) -> bp.Trace:
        trace = load("torch").run(case)
        return replace(trace, layers=tuple(self.doubled(s) if self.when(s.layer) else s for s in trace.layers))

    def doubled(self, step: bp.LayerTrace) -> bp.LayerTrace:
        if self.tensor == "dx":
            return replace(step, d_inputs=tuple(d * 2 for d in step.d_inputs))
        return replace(step, d_params={name: d * 2 if f"d{name}" == self.tensor else d for name, d in step.d_params.items()})


def of(name: str, holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda layer: type(layer).__name__ == name and holds(layer)


def numbers(option: Any) -> tuple[int, ...]:
    return option if isinstance(option, tuple) else (option,)


MISTAKES = [
    ("AvgPool1d", lambda pool: numbers(pool.stride or pool.kernel_size) < numbers(pool.kernel_size), "dx", "stride < kernel_size"),
    ("Conv2d", lambda conv: max(conv.dilation) > 1, "dweight", "dilation > 1"),
    ("Conv1d", lambda conv: conv.groups > 1, "dweight", "groups > 1"),
    ("BatchNorm", lambda norm: not norm.training, "dx", "training=False"),
    ("GRU", lambda gru: gru.bidirectional and not gru.reset_after, "dweight_hh_l0", "bidirectional=True and reset_after=False"),
]


@pytest.mark.parametrize(("layer", "when", "tensor", "words"), MISTAKES, ids=[words for *_, words in MISTAKES])
def test_a_mistake_under_a_condition_is_found_with_it(layer: str, when: Callable[[Any], bool], tensor: str, words: str) -> None:
    """What verify says of a mistake that some settings of a layer show is which ones."""
    adapter = Mistaken(of(layer, when), tensor)
    report = bp.verify(adapters=[adapter], cases=60, layers=[layer, "Linear"], precisions=["float64"], reports=None)
    wrong = [f.diagnosis.condition for f in report.findings if (f.layer, f.tensor, f.verdict) == (layer, tensor, "wrong")]
    found = {condition.partition(" (")[0] for condition in wrong}
    assert found == {f"only with {words}"}


def test_a_mistake_of_all_settings_has_no_condition() -> None:
    """Where every setting shows a finding nothing is said."""
    report = bp.verify(adapters=[Mistaken(of("AvgPool1d", lambda _: True), "dx")], cases=30, layers=["AvgPool1d"], precisions=["float64"],
                       reports=None)
    assert [f.diagnosis.condition for f in report.findings if f.verdict == "wrong"] == [""]


def tried(layer: Any, *shapes: Any, off: Callable[[Any], bool]) -> str:
    return options_that_decide({setting: off(setting.layer) for setting in variants(Setting(layer, shapes))})


def test_rules_are_said_of_what_was_tried() -> None:
    """A choice, a number, a size along some axis, a stride left out as the window's own, and two rules together."""
    pool = bp.AvgPool2d(2, stride=1)
    assert tried(pool, (1, 4, 4), off=lambda p: p.ceil_mode).startswith("only with ceil_mode=True (of ")
    assert tried(pool, (1, 4, 4), off=lambda p: max(numbers(p.padding)) > 0).startswith(
        "only with padding > 0 (of ")
    assert tried(bp.LayerNorm(), (4,), off=lambda n: n.eps > 0.1 and n.bias).startswith("only with eps > ")
    assert tried(bp.MaxPool1d(3), (1, 7), off=lambda p: (p.stride or p.kernel_size) == p.kernel_size).startswith(
        "only with stride = kernel_size (of ")


def test_no_rule_is_made_up() -> None:
    """Too few settings, or such as no rule of two options tells apart, and nothing is said."""
    layers = variants(Setting(bp.AvgPool1d(2), ((1, 6),)))
    assert options_that_decide({}) == ""
    assert options_that_decide({setting: i == 0 for i, setting in enumerate(layers)}) == ""
    assert options_that_decide({setting: i % 2 == 0 for i, setting in enumerate(layers)}) == ""
    assert options_that_decide(dict.fromkeys(layers, True)) == ""


def test_a_layer_of_several_inputs_is_tried_as_far_as_it_has_one() -> None:
    """A recurrent layer with initial states is tried without them; attention, which always has three inputs, is not."""
    found = variants(Setting(bp.GRU(2, states=True), ((3, 2), (1, 2))))
    assert found
    assert {len(setting.layer.input_names) for setting in found} == {1}
    assert variants(Setting(bp.ScaledDotProductAttention(), ((3, 2),) * 3)) == []


@dataclass(frozen=True)
class Strided(bp.Layer):
    """A layer of a user, with a stride but no window, and with a field that is no option."""

    stride: int | None = None
    steps: int = 1
    kept: int = field(default=0, repr=False)

    @classmethod
    def examples(cls) -> list[Any]:
        return [(cls(stride), (4,)) for stride in (1, 2, 3, 4)] + [(cls(None, steps, kept=7), (4,)) for steps in (2, 3, 4)]

    def forward(self, params: Any, x: Any) -> Any:
        return x, lambda dy: (dy, {})


def test_an_option_need_not_be_a_size() -> None:
    """None is a choice beside numbers, and a stride that is left out says nothing where there is no window."""
    embedding, shapes = bp.Embedding(4, 2), ((3,),)
    shown = {Setting(replace(embedding, padding_idx=padding_idx), shapes): padding_idx is None or padding_idx > 4
             for padding_idx in (None, 0, 1, 2, 3)}
    more = {Setting(replace(one.layer, embedding_dim=dim), shapes): off for one, off in shown.items() for dim in (1, 2, 3)}
    assert options_that_decide(more) == "only with padding_idx=None (of 15 settings of Embedding tried)"
    assert tried(Strided(1), (4,), off=lambda own: own.stride is None).startswith("only with stride=None (of ")


def test_what_is_no_option_is_not_tried() -> None:
    """An option of one example goes into another, a field that a layer does not show does not."""
    layers = [setting.layer for setting in variants(Setting(Strided(1), ((4,),)))]
    assert Strided(1, 2) in layers
    assert Strided(1, kept=7) not in layers


def test_what_is_tried_fits() -> None:
    """An option that does not go with the shape of the input is left out."""
    pool = bp.MaxPool1d(2)
    layers = [setting.layer for setting in variants(Setting(pool, ((1, 2),))) if setting.shapes == ((1, 2),)]
    assert replace(pool, ceil_mode=True) in layers
    assert replace(pool, kernel_size=3) not in layers


def test_three_of_either_kind_are_enough() -> None:
    """Fewer settings, on either side, say nothing."""
    layers = {dim: Setting(bp.Embedding(4, dim), ((3,),)) for dim in range(1, 7)}
    assert options_that_decide({layers[dim]: dim > 3 for dim in layers}) == "only with embedding_dim > 3 (of 6 settings of Embedding tried)"
    for few in (range(1, 6), range(2, 7)):
        assert options_that_decide({layers[dim]: dim > 3 for dim in few}) == ""
