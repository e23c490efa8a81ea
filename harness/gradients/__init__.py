"""Hand-written backpropagation of a whole model, as notebooks and courses write it: is each gradient the derivative of the loss?

Truth           The complex step Im loss(p + ih v) / h, which nothing cancels in (Squire, Trapp 1998), where `loss` carries complex numbers.
                What takes absolute values, real parts or branches may carry them and be wrong: along random directions of each parameter
                the step must agree with extrapolated differences of the real loss, within their own error, or these take its place.
                Where neither sees a derivative, as at relu(0), what lies between the derivatives nearby is a convention.
Bound           No reference rule gives one, so it is measured. Both functions run again with a random error in every operation
                (Monte Carlo arithmetic: Parker, *Monte Carlo Arithmetic*, 1997), of the size that `reference/rounding.py` grants an
                elementary function: 8 ulps, which is 16 times what one operation of real arithmetic may be off by. A sum or a product of
                matrices is off by that part of its terms' magnitudes, as no partial sum is larger. What the results move by, the most
                over the draws and over the entries of a tensor, is the bound: cancellation anywhere in the functions is in it, with the
                factor that conditioning gives it. That the true rounding, a draw from the same model at a 16th of the size, is larger
                than each of 8 draws has a chance below 1e-9 for a normal distribution (0.8 / 16 per draw).
                In float64 the error is drawn at half the digits, where results answer linearly, and the answer scaled down. Functions that
                do not carry such errors, as they turn their arrays into others, are judged to half their digits, and `skipped` says so.
Precision       Parameters of a coarser format are exact in float64. There the formula is judged, so that the format's rounding hides
                nothing; then what the gradients differ by in their own format is judged against the same measurement in its roundoff.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from backproof.gradients.checking import ModelCheck
from backproof.gradients.model import FailedError, Gradients, Loss, Model
from backproof.report.report import Report

__all__ = ["check_gradients"]


def check_gradients(loss: Loss, gradients: Gradients, parameters: Mapping[str, np.ndarray], *, seed: int = 0,
                    reports: str | Path | None = None) -> Report:
    """Check hand-written backpropagation of a whole model and return the report; write it below `reports` unless that is None.

    `loss(parameters)` returns a number, `gradients(parameters)` a dict of arrays by `"d" + name` or name, `parameters` holds float arrays
    by name; examples may lie in rows or in columns. Both are called many times, with copies. The truth is the complex step of `loss`, or
    extrapolated differences where that is not analytic: `options["truth"]` says which for each parameter, and why. A parameter of more
    than 2,000 entries is judged in random sums over all its entries and on a sample of them; `skipped` counts the rest.
    Raises TypeError or ValueError for what is no such model; what the two functions raise themselves is a finding of `error`.
    """
    started = time.perf_counter()
    check = ModelCheck(Model(loss, gradients, parameters, seed))
    try:
        check.run()
    except FailedError as error:
        check.record.problem("error", error.role, "error", str(error))
    report = check.record.report(time.perf_counter() - started)
    if reports is not None:
        report.save(reports)
    return report
