"""A candidate that takes inputs of some numbers of axes and refuses others: that is a limit of its own, and no fault of its backward."""

from __future__ import annotations

import re
from dataclasses import replace

from backproof.adapters.calls import FORWARD
from backproof.check.candidate import Candidate
from backproof.draw.probe import Probe
from backproof.report.ledger import Ledger

__all__ = ["Ranks"]

Axes = tuple[int, ...]
VARYING = re.compile(r"[\d, ()\[\]]+")  # numbers, of shapes and bytes, differ from case to case


class Ranks:
    """The numbers of axes of inputs on which a candidate gave numbers, and on which it raised."""

    def __init__(self) -> None:
        self.given: set[Axes] = set()
        self.raised: dict[str, set[Axes]] = {}

    def answered(self, probe: Probe) -> None:
        self.given.add(_axes(probe))

    def refused(self, probe: Probe, sentence: str) -> None:
        self.raised.setdefault(sentence, set()).add(_axes(probe))

    def note(self, ledger: Ledger, candidate: Candidate) -> None:
        """Turn findings of what was raised into notes, where the forward raised it on all inputs of such numbers of axes.

        One that gave numbers on no inputs at all has no limit that is known, and what its backward alone raises is a finding.
        """
        for key, finding in tuple(ledger.found.items()):
            sentence, probe = finding.diagnosis.sentence, finding.case
            axes = {every for said, found in self.raised.items() if _alike(said, sentence) for every in found}
            if axes and self.given and not axes & self.given and isinstance(probe, Probe) and _refuses(candidate, probe):
                each = " or ".join(sorted({" and ".join(str(n + 1) for n in every) for every in axes}))
                what = sentence.removeprefix("the candidate raised ")
                ledger.skipped[f"inputs of {each} axes: not supported by the candidate: {what}"] += finding.count
                del ledger.found[key]


def _axes(probe: Probe) -> Axes:
    return tuple(map(len, probe.shapes))


def _alike(a: str, b: str) -> bool:
    """Say whether two sentences differ in numbers alone, as the ledger tells errors apart."""
    return VARYING.sub("", a) == VARYING.sub("", b)


def _refuses(candidate: Candidate, probe: Probe) -> bool:
    """Say whether the forward alone raises too."""
    try:
        candidate.driver.run(candidate.function, replace(probe.call(), mode=FORWARD))
    except Exception:  # noqa: BLE001  (whatever it raises)
        return True
    return False
