"""Campaigns: what hangs or dies is a finding and nothing else is lost, and a run that was broken off goes on as if it had not been."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import backproof as bp
import numpy as np
import psutil
import pytest
from backproof.draw.strategies import layers
from backproof.draw.structures import BLOCK, DRAWS, Drawing, Later, structures
from backproof.judge.known import Known
from backproof.process import LostError
from backproof.reference.case import Case
from backproof.reference.heads import MSELoss
from backproof.reference.network import Network
from backproof.report.finding import Finding
from backproof.report.folders import CAMPAIGN, folder_name
from backproof.report.report import Report
from backproof.verify.campaign import Campaign
from backproof.verify.examining import Examiner
from backproof.verify.executor import Engine, Limits
from backproof.verify.job import TRIES
from backproof.verify.run import Run, run_all
from backproof.verify.store import Examined, Store
from distributed import Client, KilledWorker
from hypothesis import given, settings

COMMAND = [sys.executable, "-c", "from backproof.cli import main; main()"]
HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the adapter of hostile.py is installed."""
    place = tmp_path_factory.mktemp("installed")
    (place / "hostile-1.dist-info").mkdir(parents=True)
    (place / "hostile-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1\n")
    (place / "hostile-1.dist-info" / "entry_points.txt").write_text("[backproof.adapters]\nhostile = hostile:adapter\n")
    shutil.copy(HERE / "hostile.py", place)
    return place


@pytest.fixture
def hostile(installed: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The adapter of hostile.py, where only this test finds it."""
    monkeypatch.syspath_prepend(installed)
    return "hostile"


def cases_of(layer: bp.Layer, count: int) -> list[Case]:
    network = Network((3,), (bp.Linear(2), layer), MSELoss())
    return [Case(network, seed) for seed in range(count)]


@pytest.mark.parametrize(("layer", "code", "said"), [
    (bp.Tanh(), "died", "the process died (exit status 7)"),
    (bp.ReLU(), "died", "the process died (SIGSEGV)"),
    (bp.Mish(), "raised", "ZeroDivisionError: division by zero"),
    (bp.SiLU(), "raised", "MemoryError: Unable to allocate 8.00 TiB for an array with shape (1099511627776,) and data type float64"),
], ids=["exit", "segfault", "exception", "memory"])
def test_a_case_that_fails_is_a_finding_and_the_others_count(hostile: str, layer: bp.Layer, code: str, said: str) -> None:
    """The finding names the adapter, the precision and the case; the other adapter's numbers of that case count, and so do other cases."""
    with Engine.local(1, Limits(60.0, 4 * 2**30)) as engine:
        work = engine.work((hostile, "torch"), ("float64",), 0)
        cases = cases_of(layer, 2)
        ledger = engine.submit(work.examine, 0, cases).result()
        after = engine.submit(work.examine, 1, cases_of(bp.Softsign(), 2)).result()
    (finding,) = ledger.found.values()
    assert (finding.verdict, finding.adapter, finding.precision) == ("error", hostile, "float64")
    assert (finding.diagnosis.code, finding.diagnosis.sentence) == (code, said)
    assert finding.case == cases[0]
    assert {adapter for adapter, _, _, _ in ledger.tallies} == {"torch"}
    assert {name for _, _, name, _ in ledger.tallies} == {"Linear", type(layer).__name__, "MSELoss"}
    assert ledger.cases == after.cases == 2
    assert {adapter for adapter, _, _, _ in after.tallies} == {hostile, "torch"}
    assert not after.found


def test_a_known_abort_is_explained_and_another_is_not(hostile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that aborts is known by its last words where an entry speaks of its layer; a death without them is a finding."""
    entry = Known("hostile-aborts", "hostile", ("Softplus",), (), ("error",), "the layer ends the process when it checks its own work.",
                  versions=">=1", raises="Check failed: hostile to softplus")
    monkeypatch.setattr("backproof.judge.known.load_known", lambda: (entry,))
    monkeypatch.setattr("backproof.judge.known.framework_version", lambda name: "1")
    with Engine.local(1) as engine:
        work = engine.work((hostile,), ("float32",), 0)
        (known,) = engine.submit(work.examine, 0, cases_of(bp.Softplus(), 1)).result().found.values()
        (unknown,) = engine.submit(work.examine, 0, cases_of(bp.Tanh(), 1)).result().found.values()
    assert known.diagnosis.code == "died"
    assert "SIGABRT" in known.diagnosis.sentence
    assert "Check failed: hostile to softplus" in known.diagnosis.sentence
    assert known.known == entry.reason
    assert unknown.diagnosis.code == "died"
    assert not unknown.known


def test_no_drawn_image_convolution_has_strides_and_dilations() -> None:
    """The transposed convolutions of images that are drawn keep away from those that end a process in XLA."""
    seen: set[tuple[bool, bool]] = set()

    @settings(max_examples=200, database=None, deadline=None)
    @given(layers((2, 3, 4), ("ConvTranspose2d",)))
    def drawn(layer: bp.ConvTranspose2d) -> None:
        seen.add((max(np.ravel(layer.stride)) > 1, max(np.ravel(layer.dilation)) > 1))

    drawn()
    assert seen == {(False, False), (True, False), (False, True)}


def test_a_case_that_hangs_is_ended(hostile: str) -> None:
    """After its seconds a case is a finding; the draws after it, on the same adapter, are skipped and counted."""
    with Engine.local(1, Limits(4.0)) as engine:
        ledger = engine.submit(engine.work((hostile,), ("float64",), 0).examine, 0, cases_of(bp.Sigmoid(), 3)).result()
    (finding,) = ledger.found.values()
    assert (finding.diagnosis.code, finding.diagnosis.sentence) == ("hung", "no answer within 4 s")
    assert ledger.skipped == {"not run: the draw before it failed (hung)": 2}
    assert ledger.cases == 3


def test_a_process_that_is_killed_once_changes_nothing() -> None:
    """A structure whose process was ended from outside is examined again, whole: its ledger is what it would have been."""
    cases = cases_of(bp.Softsign(), 4)
    with Engine.local(1) as engine:
        work = engine.work(("torch",), ("float64",), 0)
        first = engine.submit(work.examine, 3, cases).result()
        pid = engine.submit(work.call, os.getpid).result()
        os.kill(pid, signal.SIGKILL)
        again = engine.submit(work.examine, 3, cases).result()
    assert first.tallies == again.tallies
    assert not again.found
    assert again.self_test == first.self_test


def test_work_that_is_lost_to_a_kill_is_done_again(tmp_path: Path) -> None:
    """What is no case is handed to another process where one was ended; where none survives it is an error."""
    def once(marker: Path) -> str:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    with Engine.local(1) as engine:
        work = engine.work(("torch",), ("float64",), 0)
        assert engine.submit(work.call, once, tmp_path / "marker").result() == "done"
        with pytest.raises(LostError, match=r"^the process died \(exit status 4\)$"):
            engine.submit(work.call, os._exit, 4).result()
        assert engine.submit(work.call, abs, -3).result() == 3


def test_a_death_is_shown_on_its_smallest_case(hostile: str, tmp_path: Path) -> None:
    """A run over an adapter that dies ends with a report of one finding, a small case in its folder, and the other cases counted."""
    with Engine.local(1) as engine:
        run = Run([hostile], 4, 0, ("float64",), ["Tanh"], None, engine)
        campaign = Campaign.start(tmp_path / "reports")
        report = run_all(run, lambda _: None, campaign)
    (finding,) = report.findings
    assert finding.diagnosis.code == "died"
    assert isinstance(finding.case, Case)
    assert len(finding.case.network.layers) == 1
    assert finding.case.batch == 1
    (folder,) = (path for path in campaign.folder.path.iterdir() if path.is_dir())
    assert Case.from_json((folder / "case.json").read_text()) == finding.case
    assert not report.ok


def test_every_worker_is_made_ready_before_the_first_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of two jobs has two processes from its start, of one thread each unless the caller wants more; one structure has one."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    there = {*psutil.Process().children()}
    with Engine.local(2) as engine:
        run = Run(["torch"], 8, 0, ("float64",), ["Linear"], None, engine)
        for _ in range(600):
            if len(new := {*psutil.Process().children()} - there) == 2:
                break
            time.sleep(0.1)
        assert len(new) == 2
        assert engine.submit(run.work.call, os.getenv, "OMP_NUM_THREADS").result() == "1"
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert dict(engine.work(("torch",), ("float64",), 0).variables).get("OMP_NUM_THREADS") is None
    with Engine.local(2) as engine:
        Run(["torch"], 4, 0, ("float64",), ["Linear"], None, engine)
        assert len({*psutil.Process().children()} - there) == 1


def test_a_thread_that_gets_other_limits_gets_another_process() -> None:
    """The process of an executor's thread is that of the work it does now, and ends with the thread."""
    with ThreadPoolExecutor(1) as executor:
        first, second = (Engine(executor, 1, Limits(memory=memory)).work(("torch",), ("float64",), 0) for memory in (2**33, 2**34))
        limits = [executor.submit(work.call, resource.getrlimit, resource.RLIMIT_DATA).result() for work in (first, second)]
        pids = [executor.submit(work.call, os.getpid).result() for work in (second, second)]
    assert [soft for soft, _ in limits] == [2**33, 2**34]
    assert pids[0] == pids[1]
    assert not psutil.pid_exists(pids[0])


def test_structures_kept_together_are_as_if_kept_one_by_one(tmp_path: Path) -> None:
    """Of structures in one transaction the store is the same, a finding is on the first case that shows it, and all or none count."""
    examiner = Examiner(("torch",), ("float64",), 5)
    parts = [Examined(n, n * DRAWS, cases, examiner.structure(n, cases))
             for n, cases in enumerate(structures(6 * DRAWS, 5, ["Hardsigmoid", "Linear"]))]
    shown = [key for part in parts for key in part.ledger.found]
    assert len(set(shown)) < len(shown)
    kept_rows = []
    for name, groups in (("one", [[part] for part in parts]), ("all", [parts])):
        campaign, found = Campaign.start(tmp_path / name), dict[tuple[str, ...], Finding]()
        with campaign:
            for group in groups:
                campaign.add(group, found)
                for part in group:
                    found = {**part.ledger.found, **found}
            kept_rows.append([*campaign.store.connection.iterdump()])
        folders = {path.name for path in campaign.folder.path.iterdir() if path.is_dir()}
        assert folders == {folder_name(finding) for finding in found.values()}
        for finding in found.values():
            assert Case.from_json((campaign.folder.path / folder_name(finding) / "case.json").read_text()) == finding.case
    assert kept_rows[0] == kept_rows[1]
    with Campaign.start(tmp_path) as campaign:
        with pytest.raises(ValueError, match="UNIQUE constraint failed"):
            campaign.add([parts[0], parts[0]], {})
        assert campaign.store.structures == 0


def straight(cases: int, reports: Path | None = None, **options: Any) -> Report:
    """What an uninterrupted run reports."""
    return bp.verify(adapters=("torch",), cases=cases, seed=5, reports=reports, **options)


def kept(report: Report) -> dict[str, Any]:
    """What two runs of the same cases have in common."""
    data = report.describe()
    return {name: data[name] for name in data if name not in {"seconds", "options", "environment"}}


def test_a_campaign_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """In steps, across blocks and with other numbers of processes, a campaign reports what one run of all its cases does."""
    total = DRAWS * (BLOCK + 3)
    options = {"adapters": ("torch",), "seed": 5, "precisions": ("float64", "float32"), "layers": ["Hardsigmoid", "Linear", "Softplus"],
               "minutes": None}
    campaign = Campaign.start(tmp_path)
    report = run_all(Run(cases=DRAWS * 2, **options), lambda _: None, campaign)  # type: ignore[arg-type]
    assert report.cases == DRAWS * 2
    for cases in (DRAWS * BLOCK, total):
        report = run_all(Run(cases=cases, **options), lambda _: None, Campaign.resume(campaign.folder.path))  # type: ignore[arg-type]
    whole = bp.verify(**{**options, "cases": total, "reports": None})  # type: ignore[arg-type]
    assert kept(report) == kept(whole)
    assert report.known
    assert json.loads((campaign.folder.path / "report.json").read_text())["cases"] == total
    with sqlite3.connect(campaign.folder.path / CAMPAIGN) as store:
        assert store.execute("SELECT count(*) FROM cases").fetchone() == (total,)
        sums = store.execute("SELECT sum(compared), max(margin) FROM certificates").fetchone()
    assert sums == (whole.compared, whole.margin)


def test_drawing_goes_on_from_any_block() -> None:
    """From the state at the start of any block the same structures and cases follow."""
    found = [(index, state, cases) for (index, state, cases), _ in zip(Drawing(3, ["Linear", "ReLU"]).structures(Later), range(4 * BLOCK),
                                                                       strict=False)]
    for index, state, _ in found:
        if state is not None and index:
            again = Drawing(3, ["Linear", "ReLU"], json.loads(json.dumps(state))).structures(Later)
            assert [next(again)[2] for _ in range(BLOCK)] == [cases for _, _, cases in found[index : index + BLOCK]]
    assert sum(state is not None for _, state, _ in found) == 4


def start(folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [*COMMAND, "verify", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def resumed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "verify", "--resume", str(folder), *arguments], capture_output=True, text=True, check=False)


def finished(reports: Path) -> int:
    """How many cases the campaign below a folder holds."""
    for path in reports.glob(f"*/{CAMPAIGN}"):
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as store:
                return int(store.execute("SELECT count(*) FROM cases").fetchone()[0])
        except sqlite3.OperationalError:
            pass
    return 0


def test_killing_the_driver_loses_nothing(tmp_path: Path) -> None:
    """After a kill -9 the campaign goes on: every case is there once, and the verdicts are those of a run that was not killed."""
    arguments = ("--adapter", "torch", "--seed", "5", "--jobs", "2", "--cases", "48")
    process = start(tmp_path, *arguments)
    try:
        while not finished(tmp_path / "reports"):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    (folder,) = (tmp_path / "reports").iterdir()
    assert 0 < finished(tmp_path / "reports") < 48
    done = resumed(folder, "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    mine, whole = json.loads((folder / "report.json").read_text()), json.loads(straight(48).to_json())
    for name in set(mine) - {"seconds", "options", "environment"}:
        assert mine[name] == whole[name], name


def test_a_full_disk_stops_with_a_sentence_and_a_store_that_opens(tmp_path: Path) -> None:
    """Where the store cannot grow the run ends with one line and exit 2, and goes on when there is room."""
    small = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000)); "
    done = subprocess.run([sys.executable, "-c", small + COMMAND[-1], "verify", "--adapter", "torch", "--seed", "5", "--cases", "400"],
                          cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "backproof" in line]
    assert "cannot be written" in line
    assert "What was counted before is kept" in line
    (folder,) = (tmp_path / "reports").iterdir()
    store = Store(folder / CAMPAIGN)
    before = store.structures
    store.close()
    assert 0 < before < 100
    done = resumed(folder, "--cases", str(DRAWS * (before + 1)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert finished(tmp_path / "reports") == DRAWS * (before + 1)


def test_a_campaign_has_one_writer_and_one_way_of_going_on(tmp_path: Path) -> None:
    """A second run on a campaign is refused while it is written, and afterwards where it would examine something else."""
    options: dict[str, Any] = {"adapters": ("torch",), "precisions": ("float64",), "layers": ["Linear"], "minutes": None}
    campaign = Campaign.start(tmp_path)
    with pytest.raises(ValueError, match=r"another run is writing this campaign\. Wait for it, or end it$"):
        Campaign.resume(campaign.folder.path)
    run_all(Run(cases=4, seed=5, **options), lambda _: None, campaign)
    with pytest.raises(ValueError, match=r"begun with something else, .*: seed was 5, is 6\. Begin a new one$"):
        run_all(Run(cases=8, seed=6, **options), lambda _: None, Campaign.resume(campaign.folder.path))
    with pytest.raises(ValueError, match=r"no campaign to go on with: it has no campaign\.sqlite$"):
        Campaign.resume(tmp_path)
    done = resumed(campaign.folder.path, "--seed", "6")
    assert done.returncode == 2
    assert "--resume goes on with what the campaign was begun with: got --seed too" in done.stderr


def test_a_damaged_store_is_one_sentence(tmp_path: Path) -> None:
    """Whatever happened to the file, opening and reading it works or is a ValueError that names it."""
    campaign = Campaign.start(tmp_path)
    run_all(Run(("torch",), 4, 5, ("float64",), ["Hardsigmoid"], None), lambda _: None, campaign)
    whole, path = (campaign.folder.path / CAMPAIGN).read_bytes(), tmp_path / "damaged.sqlite"
    rng, refused = random.Random(0), 0  # noqa: S311
    for _ in range(150):
        data = bytearray(whole[: rng.choice((len(whole), rng.randrange(len(whole))))])
        for _ in range(rng.choice((0, 1, 40, 400))):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        said = ""
        try:
            store = Store(path)
            store.ledger()
            store.close()
        except ValueError as error:
            said = str(error)
        assert not said or (str(path) in said and "\n" not in said)
        refused += bool(said)
    assert refused > 30


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def visits(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which the hostile adapter counts its visits of an ELU; at those in the file `kills` it kills who waits for it."""
    folder = installed / "visits"
    folder.mkdir()
    (folder / "kills").touch()
    monkeypatch.setenv("HOSTILE_VISITS", str(folder))
    yield folder
    shutil.rmtree(folder)


def visited(folder: Path) -> int:
    return len([*folder.glob("visit-*")])


@pytest.fixture(scope="module")
def cluster(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler of Dask that gives up at the first loss of a worker, and two workers, processes of their own."""
    address, folder = f"tcp://127.0.0.1:{free_port()}", tmp_path_factory.mktemp("dask")
    variables = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0", "PYTHONPATH": str(installed),
                 "HOSTILE_VISITS": str(installed / "visits")}
    quiet: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True,
                             "env": variables}
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", address.rpartition(":")[2], "--host", "127.0.0.1",
            "--no-dashboard", "--no-jupyter"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--nworkers", "2", "--no-dashboard",
              "--local-directory", str(folder)]
    started = [subprocess.Popen(command, **quiet) for command in (dask, worker)]
    try:
        with Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
        yield address
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_dask_cluster_gives_the_same_report(cluster: str, tmp_path: Path) -> None:
    """The workers of a real scheduler give the report of this process."""
    process = start(tmp_path, "--adapter", "torch", "--seed", "5", "--cases", "24", "--scheduler", cluster)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    mine = json.loads(next((tmp_path / "reports").rglob("report.json")).read_text())
    whole = json.loads(straight(24).to_json())
    for name in set(mine) - {"seconds", "options", "environment"}:
        assert mine[name] == whole[name], name


def test_work_of_a_dask_worker_that_is_killed_is_handed_out_again(hostile: str, visits: Path, cluster: str) -> None:
    """Where a scheduler gives work up, since its worker was killed in the middle of a case, the verdicts are those of a run without."""
    options: dict[str, Any] = {"adapters": (hostile,), "cases": 8, "precisions": ("float64",), "layers": ["ELU"], "reports": None}
    whole = bp.verify(**options)
    undisturbed = visited(visits)
    (visits / "kills").write_text(str(undisturbed + 2))
    report = bp.verify(**options, scheduler=cluster)
    assert visited(visits) > 2 * undisturbed
    assert report.ok
    assert kept(report) == kept(whole)


def test_work_that_kills_every_dask_worker_is_given_up(hostile: str, visits: Path, cluster: str) -> None:
    """What is lost three times ends the run with what Dask says of it."""
    (visits / "kills").write_text(" ".join(map(str, range(99))))
    with pytest.raises(KilledWorker):
        bp.verify(adapters=(hostile,), cases=4, precisions=("float64",), layers=["ELU"], reports=None, scheduler=cluster)
    assert visited(visits) == TRIES


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, partial(ProcessPoolExecutor, mp_context=get_context("spawn"))],
                         ids=["threads", "processes"])
def test_any_executor_gives_the_same_report(pool: Callable[[int], Executor]) -> None:
    """Calls through an executor of the standard library give the report of this process."""
    options: dict[str, Any] = {"layers": ["Linear", "Tanh"], "precisions": ("float64",)}
    with pool(2) as executor:
        assert kept(straight(12, scheduler=executor, jobs=2, **options)) == kept(straight(12, **options))


def test_the_example_of_another_executor_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/campaigns.md says how another executor is given."""
    text = (Path(__file__).parents[2] / "docs" / "campaigns.md").read_text(encoding="utf-8")
    (example,) = [part.partition("```")[0] for part in text.split("```py\n")[1:]]
    monkeypatch.chdir(tmp_path)
    there: dict[str, Any] = {}
    with ThreadPoolExecutor(2) as executor:
        exec(example.replace("10_000", "8"), {"executor": executor}, there)  # noqa: S102  (our own page)
    assert there["report"].ok
    assert finished(tmp_path / "reports") == 8


def test_a_pool_that_breaks_ends_the_run_and_not_the_campaign(hostile: str, visits: Path, tmp_path: Path) -> None:
    """A process of a pool that is killed in the middle of a case breaks the pool: what was done is kept, and the campaign goes on."""
    options: dict[str, Any] = {"adapters": (hostile,), "seed": 5, "precisions": ("float64",), "layers": ["ELU"]}
    (visits / "kills").write_text("10")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor, pytest.raises(BrokenProcessPool):
        bp.verify(**options, cases=16, reports=tmp_path / "reports", scheduler=executor)
    (folder,) = (tmp_path / "reports").iterdir()
    assert 0 < finished(tmp_path / "reports") < 16
    report = bp.verify(resume=folder)
    assert report.options["adapters"] == [hostile]
    assert kept(report) == kept(bp.verify(**options, cases=16, reports=None))


def test_what_is_no_executor_is_refused() -> None:
    """A scheduler is an address or an executor, and limits are above zero."""
    with pytest.raises(TypeError, match=r"^scheduler: got int, expected the address of a Dask scheduler or a concurrent\.futures"):
        bp.verify(scheduler=8786, reports=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^timeout: got 0, expected seconds above 0$"):
        bp.verify(timeout=0, reports=None)
    with pytest.raises(ValueError, match=r"^memory: got -1073741824, expected bytes above 0$"):
        bp.verify(memory=-1, reports=None)


def test_a_run_goes_on_from_python(tmp_path: Path) -> None:
    """`resume` takes from the campaign what is left at its default, and refuses what would be something else."""
    options: dict[str, Any] = {"adapters": ("torch",), "seed": 5, "precisions": ("float64",), "layers": ["Linear", "Hardsigmoid"]}
    bp.verify(**options, cases=4, reports=tmp_path)
    (folder,) = tmp_path.iterdir()
    with pytest.raises(ValueError, match="seed was 5, is 6"):
        bp.verify(resume=folder, seed=6)
    assert kept(bp.verify(resume=folder)) == kept(bp.verify(**options, cases=4, reports=None))
    more = bp.verify(resume=folder, cases=12, timeout=60, memory=8)
    assert kept(more) == kept(bp.verify(**options, cases=12, reports=None))
    assert more.options["jobs"] == 1
    assert len([*tmp_path.iterdir()]) == 1
