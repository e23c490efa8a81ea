"""What draws turn to: layers whose next draw is likeliest to show something new, and regimes that were met least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import backproof as bp
import pytest
from backproof.draw.coverage import Coverage, layers_of, options_of, reached
from backproof.reference.case import Case
from backproof.reference.heads import CrossEntropyLoss, MSELoss
from backproof.reference.network import Network
from backproof.reference.values import REGIMES

RESIDUAL = bp.Residual(bp.Sequential((bp.Linear(4), bp.ReLU())))
BRANCHES = bp.Parallel((bp.Linear(2), bp.Sequential((bp.Tanh(), bp.Linear(2)))))
NESTED = Network((4,), (RESIDUAL, BRANCHES, bp.Concatenate(), bp.ReLU()), MSELoss())


def of(layers: Iterable[object]) -> Network:
    return Network((4,), tuple(layers), MSELoss())  # type: ignore[arg-type]


def test_every_layer_is_walked() -> None:
    """Containers, what is in them, in branches and below, and the head."""
    names = [type(layer).__name__ for layer in layers_of(NESTED)]
    assert names == ["Residual", "Sequential", "Linear", "ReLU", "Parallel", "Linear", "Sequential", "Tanh", "Linear", "Concatenate",
                     "ReLU", "MSELoss"]


def test_options_are_what_a_layer_writes() -> None:
    """Each field with its value; layers inside are not an option, and of weights only whether they are there."""
    assert [*options_of(bp.LeakyReLU(0.25))] == ["LeakyReLU(negative_slope=0.25)"]
    assert [*options_of(bp.ReLU())] == []
    assert [*options_of(bp.Residual(bp.Tanh()))] == []
    head = CrossEntropyLoss(weight=(0.5, 1.0, 2.0))
    assert "CrossEntropyLoss(weight=(...))" in [*options_of(head)]
    assert "CrossEntropyLoss(weight=None)" in [*options_of(CrossEntropyLoss())]
    assert "AvgPool2d(kernel_size=(2, 3))" in [*options_of(bp.AvgPool2d((2, 3)))]


def test_a_case_reaches_its_layers_in_its_regime_and_precision() -> None:
    """What a report counts: each name once for a case, whatever it holds twice, with the layers that are run for a container."""
    found = reached(Case(NESTED, 0, "ties", 2, "float32"))
    names = {"Residual", "Concatenate", "Linear", "ReLU", "Parallel", "Sequential", "Tanh", "MSELoss"}
    assert names <= found["layers"]
    assert found["layers"] - names <= {"Add", "Fork"}
    assert found["layers in regimes"] == {f"{name} ties" for name in found["layers"]}
    assert found["layers in precisions"] == {f"{name} float32" for name in found["layers"]}
    assert found["options"] == {option for layer in layers_of(NESTED) for option in options_of(layer)}


def test_structures_are_counted_and_not_layers() -> None:
    """A network that holds a layer three times has drawn it once; so with its options."""
    coverage = Coverage()
    for _ in range(2):
        coverage.count(of([bp.LeakyReLU(0.5), bp.LeakyReLU(0.5), bp.LeakyReLU(0.25)]))
    assert coverage.layers == Counter({"LeakyReLU": 2, "MSELoss": 2})
    assert coverage.options["LeakyReLU(negative_slope=0.5)"] == coverage.options["LeakyReLU(negative_slope=0.25)"] == 2


@pytest.mark.parametrize(("layers", "options", "order"), [
    ({}, {}, ["ELU", "GELU", "ReLU"]),
    ({"ELU": 1, "ReLU": 1}, {}, ["GELU", "ELU", "ReLU"]),  # never drawn: first
    ({"ELU": 9, "GELU": 9, "ReLU": 9}, {"GELU(a=(1, 2))": 1}, ["GELU", "ELU", "ReLU"]),  # an option seen once: more to come
    ({"ELU": 9, "GELU": 9, "ReLU": 9}, {"GELU(approximate='tanh')": 2}, ["ELU", "GELU", "ReLU"]),  # seen twice says nothing
    ({"ELU": 3, "GELU": 8, "ReLU": 1}, {}, ["ReLU", "ELU", "GELU"]),  # without options: the less drawn
    ({"ELU": 3, "GELU": 8, "ReLU": 1}, {"GELU(a=1)": 1, "GELU(a=2)": 1, "GELU(a=3)": 1}, ["ReLU", "GELU", "ELU"]),  # 1/2, 4/9, 1/4
    ({"ELU": 3, "GELU": 9, "ReLU": 9}, {"GELU(a=1)": 1, "GELU(a=2)": 1}, ["GELU", "ELU", "ReLU"]),  # 3/10, 1/4, 1/10
    ({"ELU": 3, "GELU": 7, "ReLU": 9}, {"GELU(a=1)": 1, "ReLUX(a=1)": 1}, ["ELU", "GELU", "ReLU"]),  # 1/4 and 2/8: the less drawn
], ids=["nothing", "never drawn", "seen once", "seen twice", "less drawn", "chances", "closer chances", "equal chances"])
def test_the_rarest_is_likeliest_to_show_something_new(layers: dict[str, int], options: dict[str, int], order: list[str]) -> None:
    """By (options seen once + 1) / (draws + 1), then by draws, then as they are named; as many as asked for."""
    coverage = Coverage()
    coverage.layers, coverage.options = Counter(layers), Counter(options)
    names = ["ELU", "GELU", "ReLU"]
    assert coverage.rarest(names, 3) == order
    assert coverage.rarest(names, 2) == order[:2]
    assert coverage.rarest(names[:1], 3) == ["ELU"]


def test_draws_are_in_the_regimes_that_the_layers_have_met_least() -> None:
    """All regimes in turn before any comes again, in the order of the table; a layer met for the first time counts for itself."""
    coverage, names = Coverage(), [*REGIMES]
    first = coverage.turn(of([bp.Tanh()]), 3)
    assert first == names[:3]
    assert coverage.turn(of([bp.Tanh()]), 3) == names[3:6]
    assert coverage.turn(of([bp.Tanh()]), len(names) - 6 + 1) == sorted([*names[6:], names[0]], key=names.index)
    assert coverage.regimes == Counter({f"{layer} {regime}": 1 + (regime == names[0]) for layer in ("Tanh", "MSELoss", "any layer")
                                        for regime in names})


def test_a_regime_that_few_layers_have_met_comes_first() -> None:
    """What every layer of a network has met waits for what one of them has not; of that seldom met half is less than never."""
    coverage, names = Coverage(), [*REGIMES]
    coverage.regimes = Counter({f"{layer} {regime}": 2 for layer in ("ReLU", "Tanh", "MSELoss", "any layer") for regime in names})
    del coverage.regimes[f"Tanh {names[4]}"]
    coverage.regimes[f"ReLU {names[2]}"] = 1
    network = of([bp.ReLU(), bp.Tanh(), bp.ReLU()])
    assert Coverage.turn(coverage, network, 1) == [names[4]]
    assert coverage.regimes[f"Tanh {names[4]}"] == 1
    assert coverage.regimes[f"ReLU {names[4]}"] == 3
    assert coverage.turn(network, 2) == [names[0], names[2]]  # 4/3 and 3/2, against the 5/4 of what was met just now


def test_never_met_counts_more_than_seldom_met() -> None:
    """A regime that one layer has never met, and another often, comes before one that each has met once."""
    coverage, (often, once, *others) = Coverage(), REGIMES
    coverage.regimes = Counter({f"{layer} {regime}": 99 for layer in ("ReLU", "Tanh") for regime in others})
    coverage.regimes |= {f"ReLU {often}": 9, f"ReLU {once}": 1, f"Tanh {once}": 1}
    assert coverage.turn(of([bp.ReLU(), bp.Tanh()]), 1) == [often]


def test_counts_survive_being_written() -> None:
    """What describe describes, restore takes over."""
    coverage = Coverage()
    coverage.count(NESTED)
    coverage.turn(NESTED, 4)
    again = Coverage()
    again.restore(coverage.describe())
    assert (again.layers, again.options, again.regimes) == (coverage.layers, coverage.options, coverage.regimes)
    assert isinstance(again.layers["never"], int)
    assert coverage.describe().keys() == {"layers", "options", "regimes"}
