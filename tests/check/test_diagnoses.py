"""The measurement of docs/benchmarks.md on a few layers: mistakes made by hand are named, and none of them by a wrong name."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import backproof as bp
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def measurement() -> Any:
    """Return the benchmark, which imports others by their bare names."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return import_module("diagnoses")
    finally:
        sys.path.pop(0)


diagnoses = measurement()
SIGN, DOUBLED = (next(kind for kind in diagnoses.KINDS if kind.codes == (code,)) for code in ("sign", "doubled"))


@pytest.mark.parametrize(("layer", "least"), [("Linear", 14), ("Softmax", 8), ("ConvTranspose1d", 14), ("KLDivLoss", 8)])
def test_mistakes_are_named_and_none_wrongly(layer: str, least: int) -> None:
    """Of many kinds of mistake in every gradient each is found, none is named wrongly, and nine in ten are named."""
    found = list(diagnoses.trials([layer]))
    assert len({one.kind.words for one in found}) >= least
    assert [one.says for one in found if one.worth in {"wrongly", "missed"}] == []
    assert sum(one.worth in {"named", "equal"} for one in found) >= 0.9 * len(found)


def test_a_wrong_name_counts_as_one() -> None:
    """A name for other numbers, a blame on another tensor, and no finding at all are told from a right name."""
    layer, shapes = bp.Tanh(), ((3, 4),)
    made = diagnoses.planted((layer, shapes), "dx", SIGN)
    report = bp.check(diagnoses.candidate(layer, "dx", SIGN), layer, framework="numpy", cases=2)
    (finding,) = {f.diagnosis.code: f for f in report.findings}.values()
    assert diagnoses.worth(finding, "dx", SIGN, made) == "named"
    assert diagnoses.worth(finding, "dx", DOUBLED, diagnoses.planted((layer, shapes), "dx", DOUBLED)) == "wrongly"
    assert diagnoses.worth(finding, "dx", DOUBLED, made) == "equal"
    assert diagnoses.worth(finding, "dweight", SIGN, made) == "wrongly"
    own = [one.inputs[0][0, 0, 0] for one, _ in made]
    hidden = diagnoses.Kind("on other numbers than are drawn", lambda s: s.gradient() * (2 if s.inputs[0].flat[0] in own else 1), ())
    assert diagnoses.trial(layer, shapes, "dx", hidden).worth == "missed"
    assert diagnoses.trial(layer, shapes, "dx", diagnoses.Kind("none", lambda s: s.gradient() * 1, ())) is None


def test_a_random_factor_is_no_mistake_with_a_name() -> None:
    """What no rule makes is unknown, which counts as right."""
    kind = diagnoses.KINDS[-1]
    assert kind.codes == ("unknown",)
    assert diagnoses.trial(bp.Tanh(), ((3, 4),), "dx", kind).worth == "named"
    assert np.any(kind.wrong(diagnoses.scene(bp.Tanh(), ((3, 4),), "dx", 1)))
