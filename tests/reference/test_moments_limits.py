"""Where the terms of a weight's gradient may overflow before they are scaled, and where they just do not."""

from __future__ import annotations

import numpy as np
import pytest
from backproof.reference.moments import Standardised
from backproof.reference.rounding import PRECISIONS, Arithmetic

LARGEST32, LARGEST64 = (float(np.finfo(kind).max) for kind in (np.float32, np.float64))
LIMITS = [
    ("float64", [1e200], [True]),  # far above float32's largest number
    ("float64", [LARGEST64 / 2, LARGEST64], [True, False]),
    ("float32", [LARGEST32 * 0.75], [True]),  # of one term there is no sum
    ("float32", [LARGEST32 / 2, LARGEST32], [True, False]),  # two of which a sum just holds, and one that is too large for two
    ("bfloat16", [LARGEST32 / 2, LARGEST32], [True, False]),  # summed in float32
]


@pytest.mark.parametrize(("precision", "reach", "known"), LIMITS)
def test_terms_are_known_up_to_the_largest_number_over_their_count(precision: str, reach: list[float], known: list[bool]) -> None:
    """A term is known while as many of its size, before rstd is multiplied, are within the accumulator's range."""
    arithmetic = Arithmetic(PRECISIONS[precision])
    unit, one = arithmetic.exact(np.ones(len(reach))), arithmetic.exact(1.0)
    group = Standardised(len(reach), (0,), None, one, unit, unit, np.array(reach), constant=False)
    terms = group.weighted(arithmetic.exact(np.ones(len(reach))))
    assert np.isfinite(terms.bounds()).tolist() == known
