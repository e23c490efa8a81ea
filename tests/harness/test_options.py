"""With which options a layer is off: mistakes planted under a condition are found with that condition, and no rule is made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import backproof as bp
import pytest
from backproof.adapters import load
from backproof.options import options_that_decide, variants
from backproof.setting import Setting


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
                       reports=None)  # fmt: skip
    assert [f.diagnosis.condition for f in report.findings if f.verdict == "wrong"] == [""]


def tried(layer: Any, *shapes: Any, off: Callable[[Any], bool]) -> str:
    return options_that_decide({setting: off(setting.layer) for setting in variants(Setting(layer, shapes))})


def test_rules_are_said_of_what_was_tried() -> None:
    """A choice, a number, a size along some axis, a stride left out as the window's own, and two rules together."""
    pool = bp.AvgPool2d(2, stride=1)
    assert tried(pool, (1, 4, 4), off=lambda p: p.ceil_mode).startswith("only with ceil_mode=True (of ")
    assert tried(pool, (1, 4, 4), off=lambda p: max(numbers(p.padding)) > 0).startswith(
        "only with padding > 0 (of ")  # fmt: skip
    assert tried(bp.LayerNorm(), (4,), off=lambda n: n.eps > 0.1 and n.bias).startswith("only with eps > ")
    assert tried(bp.MaxPool1d(3), (1, 7), off=lambda p: (p.stride or p.kernel_size) == p.kernel_size).startswith(
        "only with stride = kernel_size (of ")  # fmt: skip


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
