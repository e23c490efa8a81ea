"""A campaign: the folder of a run, with its store, its lock and its reports. Whatever ends a run, it can be gone on with."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from backproof.adapters.framework import all_frameworks
from backproof.reference.usage import UsageError
from backproof.report.disk import ReportFolder
from backproof.report.finding import Finding
from backproof.report.folders import CAMPAIGN
from backproof.report.ledger import Ledger
from backproof.verify.store import Examined, Store
from filelock import FileLock, Timeout

__all__ = ["Campaign"]

LOCK = ".lock"
SAME = ("adapters", "precisions", "seed", "layers")  # options without which the cases are others


def _facts() -> tuple[str, ...]:
    """Return the names of the facts of an environment without which the numbers may be others."""
    frameworks = (package for framework in all_frameworks() for package in framework.packages)
    return tuple(dict.fromkeys(("backproof", "numpy", *frameworks, "ml_dtypes", "cpu")))


class Campaign:
    """A folder that one run writes into. Raises ValueError for a folder that is none or in use, OSError where it cannot be written."""

    def __init__(self, folder: ReportFolder) -> None:
        self.folder = folder
        self.lock = FileLock(folder.path / LOCK, timeout=0)
        try:
            self.lock.acquire()
        except Timeout:
            raise UsageError(f"{folder.path}: another run is writing this campaign. Wait for it, or end it") from None
        self.store = Store(folder.path / CAMPAIGN, write=True)

    @classmethod
    def start(cls, reports: Path) -> Campaign:
        """Begin a campaign in a new folder below `reports`."""
        return cls(ReportFolder.new(reports))

    @classmethod
    def resume(cls, folder: Path) -> Campaign:
        """Open a campaign to go on with it."""
        if not (folder / CAMPAIGN).is_file():
            raise UsageError(f"{folder}: no campaign to go on with: it has no {CAMPAIGN}")
        return cls(ReportFolder(folder))

    @property
    def options(self) -> dict[str, Any]:
        """The options it was begun with."""
        found: dict[str, Any] | None = self.store.fact("options")
        if found is None:
            raise UsageError(f"{self.folder.path}: the campaign ended before its first case. Begin a new one")
        return found

    def begin(self, options: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """Keep what a run is made of, or see that it is what it was; raise ValueError, naming what differs, where it is not."""
        mine = {**{name: options[name] for name in SAME}, **{name: environment.get(name, "") for name in _facts()}}
        was = self.store.fact("made of")
        if was is None:
            self.store.keep(options=options, environment=environment, **{"made of": mine})
            return
        changed = [f"{name} was {was.get(name)}, is {mine[name]}" for name in mine if mine[name] != was.get(name)]
        if changed:
            raise UsageError(f"{self.folder.path}: the campaign was begun with something else, and its cases or numbers would be others: "
                             f"{'; '.join(changed)}. Begin a new one")
        self.store.keep(options=options, environment=environment)

    def add(self, structures: Sequence[Examined], found: Container[tuple[str, ...]]) -> None:
        """Keep structures that were examined, and write what they showed for the first time; `found` has the keys of what is there."""
        new: dict[tuple[str, ...], Finding] = {}
        for structure in structures:
            for key, finding in structure.ledger.found.items():
                if key not in found:
                    new.setdefault(key, finding)
        for finding in new.values():
            self.folder.add(finding)
        self.store.add(structures)

    def ledger(self) -> Ledger:
        """Return the counts and findings so far, with the tensors that lie in the folders of the findings."""
        ledger = self.store.ledger()
        ledger.found = {key: self.folder.restored(finding) for key, finding in ledger.found.items()}
        return ledger

    def smallest(self, key: tuple[str, ...], before: Finding, finding: Finding) -> None:
        """Keep a finding on the smallest case that shows it."""
        self.folder.exchange(before, finding)
        self.store.replace(key, finding)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.store.close()
        self.lock.release()
