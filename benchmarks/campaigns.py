"""Campaigns under load: killed at random moments, on several workers, over many cases, and as stores of a million certificates.

    python benchmarks/campaigns.py kills [--times 50]      driver and workers get kill -9; what was finished is there, once
    python benchmarks/campaigns.py workers [--cases 400]   cases per second of one worker, of two, and of four against a Dask cluster's
    python benchmarks/campaigns.py memory [--cases 100000] the peak of driver and worker, against that of a hundredth of the cases
    python benchmarks/campaigns.py store                   opening, summing up and comparing stores of 1,000,000 certificates

`--write` puts the section into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from backproof.compare.comparison import compare_reports
from backproof.compare.reading import read_report
from backproof.reference.case import Case
from backproof.reference.heads import MSELoss
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.report.folders import CAMPAIGN
from backproof.report.ledger import Ledger
from backproof.report.results import Tally
from backproof.verify.store import Examined, Store
from document import conditions, note, table, write

COMMAND = [sys.executable, "-c", "from backproof.cli import main; main()", "verify"]
SMALL = ("--adapter", "torch", "--layers", "Linear,ReLU,Tanh,LayerNorm")
MINE = {"seconds", "options", "environment"}  # what two runs of the same cases need not share


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(folder: Path, *arguments: str) -> float:
    """Run to the end and return the seconds it took; a run that fails is the end of the benchmark."""
    begin = time.perf_counter()
    done = subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - begin


def only(folder: Path) -> Path:
    (found,) = (folder / "reports").iterdir()
    return found


def cases_in(folder: Path) -> int:
    """How many cases the one campaign in a folder holds; 0 where it is not there yet."""
    try:
        with sqlite3.connect(f"{(only(folder) / CAMPAIGN).as_uri()}?mode=ro", uri=True) as store:
            numbers = [number for (number,) in store.execute("SELECT number FROM cases ORDER BY number")]
    except (sqlite3.Error, ValueError, FileNotFoundError):
        return 0
    if numbers != [*range(len(numbers))]:
        raise SystemExit(f"cases lost or counted twice: {numbers}")
    return len(numbers)


def counted(folder: Path) -> int:
    """The same, without a look at which they are: whoever looks on must not take what the workers need."""
    with suppress(sqlite3.Error, ValueError, FileNotFoundError):
        address = f"{(only(folder) / CAMPAIGN).as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as store:
            return int(store.execute("SELECT count(*) FROM cases").fetchone()[0])
    return 0


def report(folder: Path) -> dict[str, Any]:
    data = json.loads((only(folder) / "report.json").read_text())
    return {name: data[name] for name in data if name not in MINE}


def kills(times: int, cases: int, seed: int) -> str:
    """Kill the driver or a worker at random moments, go on each time, and compare with a run that nobody disturbed."""
    rng = random.Random(seed)  # noqa: S311
    arguments = (*SMALL, "--cases", str(cases), "--seed", str(seed), "--jobs", "2")
    with tempfile.TemporaryDirectory() as name:
        straight, killed = Path(name) / "straight", Path(name) / "killed"
        straight.mkdir()
        killed.mkdir()
        whole = finish(straight, *arguments)
        done = {"driver": 0, "worker": 0}
        finished, process = 0, start(killed, *arguments)
        while sum(done.values()) < times:
            time.sleep(rng.uniform(0, whole / 2))  # from before the first case to after some hundred
            now = cases_in(killed)
            if now < finished:
                raise SystemExit(f"{finished - now} finished cases were lost")
            finished = now
            if process.poll() not in {None, 0}:
                raise SystemExit(f"a run ended with {process.returncode}")
            if process.poll() is not None:  # all cases are done: begin again, and go on counting kills
                if report(killed) != report(straight):
                    raise SystemExit("the verdicts differ from those of a run that was not killed")
                shutil.rmtree(killed / "reports")
                finished, process = 0, start(killed, *arguments)
                continue
            workers = psutil.Process(process.pid).children()
            if workers and rng.random() < 0.5:
                with suppress(psutil.NoSuchProcess):
                    os.kill(rng.choice(workers).pid, signal.SIGKILL)
                    done["worker"] += 1
            else:
                process.kill()
                process.wait()
                done["driver"] += 1
                resume = (killed / "reports").exists() and (only(killed) / CAMPAIGN).exists() and cases_in(killed)
                if not resume:
                    shutil.rmtree(killed / "reports", ignore_errors=True)
                process = start(killed, "--resume", str(only(killed)), "--jobs", "2") if resume else start(killed, *arguments)
            note(f"{sum(done.values())} of {times} kills, {finished} cases")
        if process.wait():
            raise SystemExit(f"the last run ended with {process.returncode}")
        if report(killed) != report(straight):
            raise SystemExit("the verdicts differ from those of a run that was not killed")
    return (f"### kill -9\n\n{done['driver']} kills of the driver and {done['worker']} of workers at random moments of campaigns of "
            f"{cases} cases on two workers: no finished case was lost or counted twice, and the reports are those of an undisturbed run.\n")


@contextmanager
def cluster(workers: int, folder: Path) -> Iterator[str]:
    """Run a scheduler and workers of Dask on loopback."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    quiet: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    address = f"tcp://127.0.0.1:{port}"
    scheduler = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port),
                                  "--no-dashboard"], **quiet)
    members = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--nworkers", str(workers),
                                "--no-dashboard"], **quiet)
    try:
        time.sleep(15)
        yield address
    finally:
        members.terminate()
        scheduler.terminate()
        members.wait()
        scheduler.wait()


@dataclass(frozen=True)
class Pace:
    """Cases per second, and what each takes of the processor in the driver and in its workers: milliseconds that depend on no load."""

    rate: float
    driver: float
    workers: float


def spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def pace(folder: Path, *arguments: str) -> Pace:
    """Measure between the first and the last case that a campaign keeps: what a run costs before and after is another matter."""
    shutil.rmtree(folder / "reports", ignore_errors=True)
    process, seen = start(folder, *arguments), list[tuple[float, int, float, float]]()
    driver, members = psutil.Process(process.pid), 0
    while process.poll() is None:
        count = counted(folder)
        with suppress(psutil.Error):
            children = driver.children()
            members = max(members, len(children))
            if count and len(children) == members and (not seen or count > seen[-1][1]):
                seen.append((time.perf_counter(), count, spent(driver), sum(map(spent, children))))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    (begin, first, *before), (end, last, *after) = seen[0], seen[-1]
    mine, theirs = (1e3 * (b - a) / (last - first) for a, b in zip(before, after, strict=True))
    return Pace((last - first) / (end - begin), mine, theirs)


def workers(cases: int, rounds: int) -> str:
    """Cases per second by number of workers, the choices in turn, each the best of some rounds."""
    arguments = ("--cases", str(cases), "--seed", "3")
    best: dict[str, Pace] = {}

    def measure(folder: Path, choices: dict[str, tuple[str, ...]]) -> None:
        for turn in range(rounds):
            for choice, options in choices.items():
                note(f"{choice}, round {turn + 1} of {rounds}")
                found = pace(folder, "--adapter", "torch", *arguments, *options)
                best[choice] = max(best.get(choice, found), found, key=lambda one: one.rate)

    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), {f"{jobs} local": ("--jobs", str(jobs)) for jobs in (1, 2, 4)})
        with cluster(4, Path(name)) as address:  # which takes its part of the processor also where it has nothing to do
            measure(Path(name), {"4 of Dask": ("--scheduler", address)})
    one = best["1 local"]
    rows = [(choice, f"{found.rate:.1f}", f"{found.rate / one.rate:.2f}", f"{found.driver:.1f}",
             f"{found.workers:.1f}" if "local" in choice else "-") for choice, found in best.items()]
    header = ("workers", "cases per second", "times 1 local", "driver, CPU ms per case", "workers, CPU ms per case")
    return (f"### Workers\n\nCases of all families on torch, {cases} in each run, the best of {rounds} runs in turn; 4 workers share "
            f"2 cores.\n\n{table(header, rows)}\n"
            f"Where the driver and one worker have a core each, two workers on the same two cores can be "
            f"{2 / (1 + one.driver / one.workers):.2f} times as fast at most. "
            f"Dask gives {best['4 of Dask'].rate / best['4 local'].rate:.2f} of what as many local processes give.\n")


def memory(cases: int) -> str:
    """The peak of the driver and of its worker, sampled, over few and over many cases."""
    rows = []
    for count in (cases // 100, cases):
        with tempfile.TemporaryDirectory() as name:
            process, peaks = start(Path(name), *SMALL, "--cases", str(count), "--jobs", "1"), {"driver": 0, "worker": 0}
            while process.poll() is None:
                with suppress(psutil.Error):
                    driver = psutil.Process(process.pid)
                    peaks["driver"] = max(peaks["driver"], driver.memory_info().rss)
                    peaks["worker"] = max([peaks["worker"], *(child.memory_info().rss for child in driver.children())])
                note(f"{count} cases: {peaks}")
                time.sleep(0.5)
            rows.append((f"{count:,}", *(f"{peak / 2**20:.0f}" for peak in peaks.values()), f"{sum(peaks.values()) / 2**20:.0f}"))
    more = float(rows[1][3]) / float(rows[0][3]) - 1
    return f"### Memory\n\n{table(('cases', 'driver, MiB', 'worker, MiB', 'together'), rows)}\nThe longer run takes {100 * more:+.1f} %.\n"


def stores() -> str:
    """Seconds to open and sum up a store of a million certificates, and to compare two."""
    network = Network((2,), (Linear(2),), MSELoss())
    with tempfile.TemporaryDirectory() as name:
        for which in ("old", "new"):
            folder = Path(name) / which
            folder.mkdir()
            store = Store(folder / CAMPAIGN, write=True)
            store.keep(options={"adapters": ["torch"], "precisions": ["float64"], "cases": None, "seed": 0, "layers": None,
                                "draws_per_network": 4, "jobs": 1}, environment={"python": "3.11"})
            store.connection.execute("PRAGMA synchronous = OFF")  # it is filled once
            for number in range(5000):
                part = Ledger()
                part.certificates = [(n % 4, ("torch", "float64", f"L{n % 80}", f"d{n % 3}"), (10, 0, 0, 0, 0.5)) for n in range(200)]
                for _, key, counts in part.certificates:
                    part.tallies.setdefault(key, Tally()).merge(Tally(*counts))
                part.cases = 4
                store.add([Examined(number, 4 * number, [Case(network, n) for n in range(4)], part)])
                note(f"{which}: {number} of 5,000 structures")
            store.close()
        old, new = (Path(name) / which for which in ("old", "new"))
        size = (old / CAMPAIGN).stat().st_size / 2**20
        summed = timed(lambda: read_report(old))
        compared = timed(lambda: compare_reports(read_report(old), read_report(new), (old, new)))
    return (f"### Stores of 1,000,000 certificates ({size:.0f} MiB)\n\nOpened and summed up in {summed:.3f} s; two of them compared in "
            f"{compared:.3f} s.\n")


def timed(function: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kills", "workers", "memory", "store"))
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    measures = {"kills": lambda: kills(given.times, given.cases or 400, given.seed), "memory": lambda: memory(given.cases or 100_000),
                "workers": lambda: workers(given.cases or 400, given.rounds), "store": stores}
    text = measures[given.what]()
    text += f"\n{conditions()}"
    print(text)
    if given.write:
        write(f"campaigns {given.what}", text)


if __name__ == "__main__":
    main()
