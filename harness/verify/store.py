"""The store of a campaign: an SQLite file in which every structure that was examined is kept whole, or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from backproof.reference.case import Case
from backproof.reference.usage import UsageError
from backproof.report.finding import Finding
from backproof.report.ledger import Ledger
from backproof.report.reading import checked
from backproof.report.results import KEY, RUN, SELF_TEST, TALLY, Tally
from backproof.report.schema import COUNT, OPEN, Count, Record
from pydantic import TypeAdapter, with_config
from typing_extensions import TypedDict

__all__ = ["Examined", "Store", "summary"]

SCHEMA = 1
APPLICATION = 0x6270726F  # "bpro", in the header of the file
COUNTED_BY = tuple("adapter" if name == "subject" else name for name in KEY)  # a campaign is of adapters
COUNTED, PLANTED = TALLY.names(COUNT), SELF_TEST.names(COUNT)


def _columns(names: Iterable[str]) -> str:
    """Return the definitions of columns: names of a key are texts, of a tally counts and margins."""
    return ", ".join(f"{name} {'TEXT' if name in COUNTED_BY else 'INTEGER' if name in COUNTED else 'REAL'} NOT NULL" for name in names)


TABLES = f"""
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE structures (number INTEGER PRIMARY KEY, network TEXT NOT NULL, batch INTEGER NOT NULL);
CREATE TABLE cases (number INTEGER PRIMARY KEY, structure INTEGER NOT NULL, seed INTEGER NOT NULL, regime TEXT NOT NULL);
CREATE TABLE tallies (number INTEGER PRIMARY KEY, {_columns(COUNTED_BY)}, {_columns(TALLY.fields)}, UNIQUE ({', '.join(COUNTED_BY)}));
CREATE TABLE certificates (
    number INTEGER PRIMARY KEY, "case" INTEGER NOT NULL, tally INTEGER NOT NULL, {_columns(TALLY.fields)}
);
CREATE TABLE counts (kind TEXT NOT NULL, name TEXT NOT NULL, count NUMERIC NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
CREATE TABLE findings (key TEXT PRIMARY KEY, finding TEXT NOT NULL, count INTEGER NOT NULL, smallest INTEGER NOT NULL) WITHOUT ROWID;
"""
MERGED = ", ".join(f"{name} = {name} + excluded.{name}" if name in COUNTED else f"{name} = max({name}, excluded.{name})"
                   for name in TALLY.fields)
PLACES = ", ".join("?" * len(TALLY.fields))
ADD_TALLY = (f"INSERT INTO tallies VALUES (NULL, {', '.join('?' * len(KEY))}, {PLACES}) "  # noqa: S608  (names of our own columns)
             f"ON CONFLICT DO UPDATE SET {MERGED} RETURNING number")
ADD_CERTIFICATE = f"INSERT INTO certificates VALUES (NULL, ?, ?, {PLACES})"  # noqa: S608  (question marks)
OPTIONS = Record.of({name: replace(RUN.fields[name][1], needed=True) for name in ("adapters", "precisions", "cases", "seed", "layers")})


@with_config(OPEN)
class _Coverage(TypedDict):
    layers: dict[str, Count]
    options: dict[str, Count]
    regimes: dict[str, Count]


@with_config(OPEN)
class _Drawing(TypedDict):
    block: Count
    rare: list[list[str]]
    coverage: _Coverage


FACTS: dict[str, TypeAdapter[Any]] = {
    "options": TypeAdapter(OPTIONS.accepts("Options")), "environment": TypeAdapter(dict[str, str]), "drawing": TypeAdapter(_Drawing),
    "made of": TypeAdapter(dict[str, Any]),
}
"""What may be kept by name."""


class Examined(NamedTuple):
    """A structure that was examined; `drawing` is the state from which its block can be drawn again, at the first of a block."""

    number: int
    first_case: int
    cases: Sequence[Case]
    ledger: Ledger
    drawing: Mapping[str, Any] | None = None


class Store:
    """One campaign's file, with one writer at a time. Raises ValueError for a file that is no store, OSError where it cannot be written."""

    def __init__(self, path: Path, *, write: bool = False) -> None:
        self.path = path
        new = not path.exists()
        if new and not write:
            raise FileNotFoundError(f"{path}: no campaign is there")
        with self._said():
            self.connection = sqlite3.connect(path if write else f"{path.absolute().as_uri()}?mode=ro", uri=not write, isolation_level=None,
                                              timeout=1)
            if new:
                self._create()
            self._check()
            if write:
                # a commit is on the disk when it returns, so that what was counted outlives a loss of power
                self.connection.execute("PRAGMA journal_mode = WAL")
                self.connection.execute("PRAGMA synchronous = FULL")

    def _create(self) -> None:
        marks = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA};"
        self.connection.executescript(f"BEGIN IMMEDIATE;{TABLES}{marks}COMMIT;")

    def _check(self) -> None:
        application, version = (self.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if application != APPLICATION:
            raise UsageError(f"{self.path}: no campaign of backproof: an SQLite file of another program")
        if version != SCHEMA:
            raise UsageError(f"{self.path}: unknown schema of a campaign: got {version}, expected {SCHEMA}")

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Turn what SQLite raises into one sentence that names the file."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = " ".join(str(error).split())  # SQLite repeats a damaged schema, in as many lines as it has
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY}:
                raise OSError(f"{self.path}: the campaign cannot be written: {text}. What was counted before is kept") from error
            raise UsageError(f"{self.path}: not readable as a campaign: {text}") from error
        except (KeyError, TypeError, IndexError, ValueError, RecursionError, OverflowError) as error:
            if str(self.path) in str(error):
                raise
            said = " ".join(str(error).split())
            raise UsageError(f"{self.path}: a damaged campaign: {type(error).__name__}: {said}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._said():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")

    def fact(self, name: str) -> Any:
        """Return what is kept under a name, or None."""
        with self._said():
            row = self.connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
            return None if row is None else checked(FACTS[name], json.loads(row[0]), self.path)

    def keep(self, **facts: Any) -> None:
        """Keep JSON-ready values by name."""
        with self._transaction() as connection:
            self._keep(connection, facts)

    @staticmethod
    def _keep(connection: sqlite3.Connection, facts: Mapping[str, Any]) -> None:
        rows = [(name, json.dumps(value)) for name, value in facts.items()]
        connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def add(self, structures: Iterable[Examined]) -> None:
        """Add structures that were examined: their cases, certificates and what was found, all at once."""
        with self._transaction() as connection:
            for structure in structures:
                self._add(connection, structure)

    def _add(self, connection: sqlite3.Connection, structure: Examined) -> None:
        number, first_case, cases, part, drawing = structure
        if drawing is not None:
            self._keep(connection, {"drawing": drawing})
        connection.execute("INSERT INTO structures VALUES (?, ?, ?)", (number, json.dumps(cases[0].network.describe()), cases[0].batch))
        connection.executemany("INSERT INTO cases VALUES (?, ?, ?, ?)",
                               [(first_case + n, number, case.seed, case.regime) for n, case in enumerate(cases)])
        numbers = {key: self._add_tally(connection, key, tally) for key, tally in part.tallies.items()}
        connection.executemany(ADD_CERTIFICATE, [(first_case + n, numbers[key], *counts) for n, key, counts in part.certificates])
        connection.executemany("INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
                               _counts(part))
        for found, finding in part.found.items():
            self._add_finding(connection, found, finding)

    @staticmethod
    def _add_tally(connection: sqlite3.Connection, key: tuple[str, ...], tally: Tally) -> int:
        found: int = connection.execute(ADD_TALLY, (*key, *tally.counts)).fetchone()[0]
        return found

    @staticmethod
    def _add_finding(connection: sqlite3.Connection, key: tuple[str, ...], finding: Finding) -> None:
        connection.execute("INSERT INTO findings VALUES (?, ?, ?, 0) ON CONFLICT DO UPDATE SET count = count + excluded.count",
                           (json.dumps(key), json.dumps(finding.describe()), finding.count))

    def replace(self, key: tuple[str, ...], finding: Finding) -> None:
        """Keep a finding on the smallest case that shows it."""
        with self._transaction() as connection:
            row = (json.dumps(finding.describe()), json.dumps(key))
            connection.execute("UPDATE findings SET finding = ?, smallest = 1 WHERE key = ?", row)

    @property
    def structures(self) -> int:
        """How many structures were examined; they are the first ones."""
        with self._said():
            return int(self.connection.execute("SELECT count(*) FROM structures").fetchone()[0])

    def smallest(self) -> set[tuple[str, ...]]:
        """Return the keys of the findings that are on their smallest case."""
        with self._said():
            return {tuple(json.loads(key)) for (key,) in self.connection.execute("SELECT key FROM findings WHERE smallest")}

    def ledger(self) -> Ledger:
        """Return the counts and findings of the campaign so far."""
        ledger = Ledger()
        with self._said():
            for row in self.connection.execute("SELECT * FROM tallies"):
                adapter, precision, layer, tensor = map(str, row[1:5])
                ledger.tallies[adapter, precision, layer, tensor] = Tally(**TALLY.restore(dict(zip(TALLY.fields, row[5:], strict=True))))
            for kind, name, count in self.connection.execute("SELECT kind, name, count FROM counts"):
                _restore(ledger, str(kind), str(name), count)
            ledger.cases = int(self.connection.execute("SELECT count(*) FROM cases").fetchone()[0])
            for key, finding, count in self.connection.execute("SELECT key, finding, count FROM findings"):
                ledger.found[tuple(map(str, json.loads(key)))] = Finding.restored({**json.loads(finding), "count": int(count)})
        return ledger


def _counts(part: Ledger) -> list[tuple[str, str, float]]:
    test = part.self_test
    counters: dict[str, Mapping[str, float]] = {
        **{f"coverage: {what}": counts for what, counts in part.coverage.items()}, "skipped": part.skipped, "reached": part.reached,
        "met": part.met, "self-test": {name: getattr(test, name) for name in PLANTED}, "mistakes": test.by_mistake,
        "missed": Counter(test.missed), "seconds": part.seconds,
    }
    return [(kind, name, count) for kind, counter in counters.items() for name, count in counter.items()]


def _restore(ledger: Ledger, kind: str, name: str, count: float) -> None:
    """Enter one count into a ledger."""
    what, _, covered = kind.partition(": ")
    if what == "coverage":
        ledger.coverage.setdefault(covered, Counter())[name] = int(count)
    elif kind == "seconds":
        ledger.seconds[name] = float(count)
    elif kind == "self-test":
        setattr(ledger.self_test, PLANTED[PLANTED.index(name)], int(count))
    elif kind == "missed":
        ledger.self_test.missed += [name] * int(count)
    else:
        counters = {"skipped": ledger.skipped, "reached": ledger.reached, "met": ledger.met, "mistakes": ledger.self_test.by_mistake}
        counters[kind][name] = int(count)


def summary(path: Path) -> dict[str, Any]:
    """Return what a campaign holds so far as the data of a report (docs/report.md). Raises ValueError for what is no campaign."""
    store = Store(path)
    try:
        ledger, options, environment = store.ledger(), store.fact("options") or {}, store.fact("environment") or {}
    finally:
        store.close()
    return ledger.report(options, environment).describe()
