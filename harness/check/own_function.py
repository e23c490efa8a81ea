"""The framework's own function beside a candidate: is the candidate that function and nothing more?

What is known of a framework is known of its own functions. It excuses a candidate that calls one of them, and not what somebody wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from backproof.adapters.calls import DEFINED, Answer, Call, first_sentence
from backproof.adapters.framework import Framework
from backproof.check.candidate import Candidate
from backproof.judge.known import Known

__all__ = ["OwnFunction"]


class OwnFunction:
    """A framework's own function for a layer or head, called as a candidate is called."""

    def __init__(self, candidate: Candidate, like: Any) -> None:
        self.candidate, self.like = candidate, like

    @cached_property
    def function(self) -> Callable[..., Any] | None:
        """The function; None where the framework has none for the layer."""
        home = self.candidate.home
        try:
            return None if home is None or not home.tables else home.own_function(self.like)
        except (KeyError, ImportError):  # a layer of the user's own
            return None

    def adapter(self, mode: str) -> str:
        """Return the adapter of `verify` that takes the way that the framework's functions take in a mode."""
        modes: Mapping[str, str] = getattr(self.candidate.driver, "adapters", {})
        return modes.get(mode, self.candidate.driver.framework)

    def gives(self, call: Call, answer: Answer) -> bool:
        """Say whether a candidate defines no backward and gave, bit for bit, what the framework's own function gives on the same arrays."""
        own = self._answer(call)
        return isinstance(own, Answer) and _same(own, answer) and self._defines_nothing(call)

    def raises(self, call: Call, message: str) -> bool:
        """Say whether the framework's own function raises what a candidate raised, and this defines no backward."""
        own = self._answer(call)
        return isinstance(own, Exception) and message == message_of(own) and self._defines_nothing(call)

    def said(self, known: Known) -> Known:
        """Return a known discrepancy with the reason as a candidate's report gives it."""
        home: Framework | None = self.candidate.home
        if home is None:
            return known
        name = home.lowering(type(self.like))[0] or type(self.like).__name__
        return replace(known, reason=f"{home.name}'s own {name} does this: {known.reason}")

    def _answer(self, call: Call) -> Answer | Exception | None:
        if self.function is None or self.candidate.home is None:
            return None
        try:
            return self.candidate.home.driver().run(self.function, call)
        except Exception as error:  # noqa: BLE001  (whatever the framework raises is compared)
            return error

    def _defines_nothing(self, call: Call) -> bool:
        try:
            return not self.candidate.driver.run(self.candidate.function, replace(call, mode=DEFINED, tangents={})).defined
        except Exception:  # noqa: BLE001  (what is not known to be the framework's is not)
            return False


def message_of(error: Exception) -> str:
    """Return the type of an error and what it says."""
    return f"{type(error).__name__}: {first_sentence(error) or 'no message'}"


def _same(a: Answer, b: Answer) -> bool:
    """Say whether two calls gave the same arrays, bit for bit."""
    mine, others = _arrays(a), _arrays(b)
    return mine.keys() == others.keys() and all(_bits(mine[key]) == _bits(others[key]) for key in mine)


def _arrays(answer: Answer) -> dict[Any, Any]:
    outputs, d_inputs = ({(kind, i): a for i, a in enumerate(arrays)} for kind, arrays in
                         (("output", answer.outputs), ("input", answer.d_inputs)))
    return {**outputs, **d_inputs, **answer.d_params, **answer.derivatives}


def _bits(array: Any) -> Any:
    return None if array is None else (np.asarray(array).dtype, np.shape(array), np.asarray(array).tobytes())
