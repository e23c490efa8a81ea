"""`check_gradients`: hand-written backpropagation of a whole model. Is each gradient the derivative of the loss?

Two functions and their parameters come in, a report goes out.
May use: reference, adapters, wording, process, truth, proof, judge, draw, report.

Truth       `derivatives.py`. The complex step Im loss(p + ih v) / h, in which nothing cancels (Squire, Trapp 1998), where `loss` takes
            complex numbers. A loss that takes absolute values, real parts or branches may take them and give a wrong complex step. So
            along random directions of each parameter it must agree with extrapolated differences of the real loss, within the errors
            of both; otherwise the differences are the truth. Where the loss has no derivative, as at relu(0), every number between the
            derivatives nearby is right, and is reported as a convention.
Bound       No rule of the reference gives one, so it is measured. Both functions run again with a random error in every operation
            (Monte Carlo arithmetic: Parker, *Monte Carlo Arithmetic*, 1997), of the size that `reference/rounding` grants an
            elementary function: 8 ulps, which is 16 times what one operation of real arithmetic may be off by. A sum or a product of
            matrices is off by that part of its terms' magnitudes, as no partial sum is larger. The bound of a tensor is the largest
            change of its entries over all draws: cancellation anywhere in the functions is in it, with the factor that conditioning
            gives it. The true rounding is a draw from the same model at a 16th of the size; that it is larger than each of 8 draws has
            a chance below 1e-9 for a normal distribution (0.8 / 16 per draw).
            In float64 the error is drawn at half the digits, where results answer linearly, and the answer is scaled down. Functions
            that do not carry such errors, as they turn their arrays into others, are judged to half their digits; `skipped` says so.
Precision   Parameters of a coarser format are exact in float64. There the formula is judged, so that the format's rounding hides
            nothing. Then the difference of the gradients in their own format is judged against the same measurement in its roundoff.
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
    """Check hand-written backpropagation of a whole model against the derivative of its loss.

    Parameters
    ----------
    loss : callable
        ``loss(parameters)`` returns the loss as one real number. It is called many times, with copies of the parameters, with parameters
        that are moved, that hold complex numbers, and that are of a subclass of ``numpy.ndarray``; it need not take the last two.
    gradients : callable
        ``gradients(parameters)`` returns a mapping that holds the gradient of each parameter, by ``"d" + name`` or by ``name``, as an
        array of the parameter's shape. Before each call ``loss`` is called with the same parameters, so that a cache is fresh.
    parameters : mapping of str to numpy.ndarray
        Arrays of float64, float32 or float16, all of them finite. Examples may lie in rows or in columns. The arrays stay as they are.
    seed : int, default 0
        What all random directions, samples and errors are drawn from; at least 0. The same seed gives the same report.
    reports : str, pathlib.Path or None, default None
        A folder below which the report is written; None writes nothing.

    Returns
    -------
    Report
        ``report.ok`` says whether nothing is wrong, ``report.findings`` holds what is, and ``print(report)`` shows it.
        ``report.options["truth"]`` says by which method the derivative by each parameter was found, and why by no better one.
        ``report.skipped`` counts what was not compared, by reason: a parameter of more than 2,000 entries is judged in random sums over
        all its entries, and entry by entry on a sample of them.

    Raises
    ------
    TypeError
        If ``loss`` or ``gradients`` is no function, ``parameters`` no mapping of names to float arrays, or what the functions return no
        number and no mapping.
    ValueError
        If ``parameters`` is empty or holds a number that is not finite, ``loss`` returns more than one number, or ``seed`` is negative.

    Notes
    -----
    What the two functions raise themselves is not raised: it is a finding with the verdict ``error``.

    Examples
    --------
    >>> import numpy as np
    >>> from backproof import check_gradients
    >>> X, Y = np.array([[1.0, 2.0, 3.0]]), np.array([[2.0, 4.1, 5.9]])
    >>> def loss(p):
    ...     return np.sum((p["W"] @ X - Y) ** 2) / 3
    >>> def gradients(p):
    ...     return {"dW": (p["W"] @ X - Y) @ X.T / 3}  # the 2 of the square is missing
    >>> report = check_gradients(loss, gradients, {"W": np.array([[1.5]])})
    >>> report.ok
    False
    >>> print(report.findings[0].diagnosis.sentence)
    dW is half of what it should be (true values by complex step)
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
