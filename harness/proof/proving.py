"""Is a layer's hand-derived rule itself right? Proved by methods that share no derivation with it, nor with one another."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from backproof.proof.contract import breaches
from backproof.proof.kinds import BITS, NotApplicableError
from backproof.proof.methods import Outcome, by_balls, by_complex_step, by_rationals
from backproof.proof.properties import dot_product, linearity, special_values
from backproof.proof.setting import Setting, fitting
from backproof.reference.layer import Layer, Shape
from backproof.truth.exact import precise
from backproof.wording import said

__all__ = ["Proof", "prove"]

PASSED, FAILED, NOT_APPLICABLE = "passed", "failed", "not applicable"
DERIVATIVES: dict[str, Callable[[Setting, int], Outcome]] = {
    "complex step": by_complex_step, "exact rationals": by_rationals, "arbitrary precision": by_balls,
}
PROPERTIES: dict[str, Callable[[Setting, int], Outcome]] = {
    "dot-product test": dot_product, "linearity": linearity, "special values": special_values,
}


@dataclass(frozen=True)
class Proof:
    """What each method said of a layer: `sentences` names every disagreement, and who says so.

    A method has `passed`, `failed`, or is `not applicable: reason`. `notes` says where a rule agrees with an exact method within rounding
    only. `ulps` holds by tensor the largest difference of the rule in float64 from the exact number, in units in the last place of the
    tensor's largest entry; `shares` the largest such difference in units of twice the rounding bound, below 1 where rounding explains it.
    """

    layer: Layer
    shapes: tuple[Shape, ...]
    sentences: tuple[str, ...] = ()
    methods: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ulps: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing disagrees; that no method could say anything is a sentence too."""
        return not self.sentences

    def __str__(self) -> str:
        shapes = ", ".join(map(str, self.shapes)) or "unknown"
        lines = [f"{self.layer}, input shapes {shapes}: {'proved' if self.ok else 'NOT PROVED'}"]
        lines += [f"  {name:<20} {outcome}" for name, outcome in self.methods.items()]
        lines += [f"  {'float64 is off by':<20} {', '.join(f'{u:.2g} ulps in {t}' for t, u in self.ulps.items())}"] if self.ulps else []
        return "\n".join([*lines, *(f"  - {text}" for text in self.sentences), *(f"  note: {text}" for text in self.notes)])


def prove(layer: Layer, *shapes: Shape, seed: int = 7) -> Proof:
    """Check a layer's hand-derived rule by methods that share nothing with it.

    Parameters
    ----------
    layer : Layer
        The layer, such as ``bp.LayerNorm(eps=1e-5)`` or one of a class of your own.
    *shapes : tuple of int
        The shapes of its inputs, batch axis left out. Left out: the examples of its class, or usual shapes that it takes.
    seed : int, default 7
        What the numbers are drawn from on which it is proved.

    Returns
    -------
    Proof
        ``proof.ok`` says whether nothing is wrong; ``proof.methods`` what each method said (complex step, exact rationals, arbitrary
        precision, dot products, linearity, special values, and the contract of shapes and names); ``print(proof)`` shows it. Nothing is
        raised for a wrong rule: its sentences say tensor, entry, what was got and what is right.

    Examples
    --------
    >>> import backproof as bp
    >>> bp.prove(bp.Tanh()).ok
    True
    """
    if shapes:
        return _proved(Setting(layer, tuple(tuple(shape) for shape in shapes)), seed)
    proof = Proof(layer, (), ("no input shapes are known: got none that output_shape accepts, expected prove(layer, *shapes)",))
    for number, some_shapes in enumerate(fitting(layer)):
        tried = _proved(Setting(layer, some_shapes), seed)
        if tried.methods.get("complex step") != _UNRUN:
            return tried
        proof = proof if number else tried
    return proof


_UNRUN = f"{NOT_APPLICABLE}: the rule does not keep the contract"


def _proved(setting: Setting, seed: int) -> Proof:
    methods: dict[str, str] = {}
    outcome = Outcome()
    with warnings.catch_warnings(), np.errstate(all="warn", under="ignore"), precise(BITS):
        warnings.simplefilter("error")
        try:
            outcome.sentences += breaches(setting, seed)
        except Exception as error:  # noqa: BLE001  (what a layer announces of itself may raise anything)
            outcome.sentences.append(f"the layer does not take these shapes: got {said(error)}, expected an output shape and a run")
        methods["contract"] = FAILED if outcome.sentences else PASSED
        runs = not outcome.sentences or _runs(setting, seed)
        for name, method in (DERIVATIVES | PROPERTIES).items():
            methods[name] = _applied(method, setting, seed, outcome) if runs else _UNRUN
    if runs and PASSED not in (methods[name] for name in DERIVATIVES) and FAILED not in methods.values():
        reasons = "; ".join(f"{name}: {methods[name].removeprefix(f'{NOT_APPLICABLE}: ')}" for name in DERIVATIVES)
        outcome.sentences.append(f"no method could say anything: got {reasons}, expected one that runs, as on arrays "
                                 "that come of the inputs and not of np.zeros")
    return Proof(setting.layer, setting.shapes, tuple(outcome.sentences), methods, tuple(outcome.notes), outcome.ulps, outcome.shares)


def _runs(setting: Setting, seed: int) -> bool:
    """Say whether a rule that breaks its contract gives outputs and gradients all the same."""
    try:
        setting.evaluate(setting.draw(seed=seed))
    except Exception:  # noqa: BLE001  (said in the contract's sentence)
        return False
    return True


def _applied(method: Callable[[Setting, int], Outcome], setting: Setting, seed: int, total: Outcome) -> str:
    try:
        outcome = method(setting, seed)
    except NotApplicableError as error:
        return f"{NOT_APPLICABLE}: {error}"
    except Exception as error:  # noqa: BLE001  (a rule need not run on every kind of number)
        return f"{NOT_APPLICABLE}: the rule raises {said(error)}"
    total.add(outcome)
    return FAILED if outcome.sentences else PASSED
