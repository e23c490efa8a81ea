"""The command line. Exit status: 0 nothing wrong, 1 findings, 2 wrong usage or unreadable input, 3 the harness itself failed."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import click
from backproof.adapters.framework import all_frameworks, default_adapters
from backproof.draw.probe import Probe
from backproof.reference.case import Case
from backproof.reference.usage import MissingPackageError, UsageError
from backproof.report.report import Report
from backproof.verify.replay import load_case, replay
from click.core import ParameterSource

__all__ = ["main"]

FINDINGS, USAGE, INTERNAL = 1, 2, 3
LONGEST = 800  # characters of an error
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="backproof")
def cli() -> None:
    """Is this gradient right? Hand-derived backpropagation as ground truth for PyTorch, JAX and custom layers."""


def _split(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    return [name.strip() for name in value.split(",") if name.strip()] if value else None


def _jobs(context: click.Context, parameter: click.Parameter, value: str) -> int:
    from backproof.verify.executor import cores  # noqa: PLC0415

    if value == "auto":
        return cores()
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"got {value!r}, expected a whole number from 1 upward, or auto")
    return int(value)


@cli.command()
@click.option("--adapter", "adapters", multiple=True, metavar="NAME",
              help=f"Framework and mode; repeatable. Default: {', '.join(default_adapters())}.")
@click.option("--cases", type=click.IntRange(min=1), help="Draws of values, four through each network.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed gives the same cases.")
@click.option("--precision", "precisions", multiple=True, metavar="NAME", help="May be repeated. Default: float64 and float32.")
@click.option("--layers", callback=_split, metavar="NAME,...", help="Draw only these layers.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Stop drawing cases after so many minutes.")
@click.option("--jobs", callback=_jobs, default="1", show_default=True, metavar="N|auto", help="Worker processes.")
@click.option("--scheduler", metavar="ADDRESS", help="Have the workers of a Dask cluster do it.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=120, show_default=True,
              help="Seconds that one case may take on all adapters.")
@click.option("--memory", type=click.FloatRange(min=0, min_open=True), metavar="GIB",
              help="What one worker may hold. Default: its share of four fifths of the machine's.")
@click.option("--compilation-cache/--no-compilation-cache", default=True, help="Keep what XLA compiled for later runs. Default: on.")
@click.option("--reports", type=click.Path(file_okay=False), default="reports", show_default=True, help="Where the report goes.")
@click.option("--resume", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="FOLDER",
              help="Go on with a campaign, up to --cases or --minutes.")
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Delete all but the newest N reports there.")
@click.option("--baseline", type=FILE, help="What is accepted: the run fails on what is new or worse, and on nothing else.")
@click.option("--strict", is_flag=True, help="With --baseline, fail on what is to be looked at too.")
@click.option("--junit", type=NEW_FILE, help="Write JUnit XML: a test for each adapter, layer and precision.")
@click.option("--quiet", is_flag=True, help="Print no progress and no table: the findings and the verdict.")
@click.pass_context
def verify(context: click.Context, adapters: tuple[str, ...], cases: int | None, seed: int, precisions: tuple[str, ...],
           layers: list[str] | None, minutes: float | None, jobs: int, scheduler: str | None, timeout: float, memory: float | None,
           compilation_cache: bool, reports: str, resume: Path | None, keep: int | None, baseline: Path | None, junit: Path | None,
           quiet: bool, strict: bool) -> None:
    """Check frameworks over random networks and write a report. Without --cases and --minutes, 200 cases."""
    from backproof.compare.outcome import Conclusion  # noqa: PLC0415
    from backproof.report.folders import keep as keep_newest  # noqa: PLC0415
    from backproof.verify.campaign import Campaign  # noqa: PLC0415
    from backproof.verify.executor import Engine, Limits  # noqa: PLC0415
    from backproof.verify.job import HARNESS  # noqa: PLC0415
    from backproof.verify.progress import watch  # noqa: PLC0415
    from backproof.verify.run import Run, run_all  # noqa: PLC0415

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what ends a job of CI leaves a report too
    if strict and baseline is None:
        raise click.UsageError("--strict needs a --baseline: without one every finding fails")
    conclusion = Conclusion(baseline, junit, strict=strict)
    limits = Limits(timeout, None if memory is None else int(memory * 2**30), compilation_cache)
    wanted = None if cases is None and minutes is not None else cases or 200
    made_of: dict[str, Any] = {"adapters": adapters or _installed() if resume is None else (), "seed": seed, "layers": layers,
                               "precisions": precisions or ("float64", "float32")}
    campaign = None
    if resume is not None:
        given = [f"--{name}" for name in made_of if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if given:
            raise click.UsageError(f"--resume goes on with what the campaign was begun with: got {', '.join(given)} too")
        campaign = Campaign.resume(resume)
        made_of = {name: campaign.options[name] for name in made_of}
        wanted = wanted if cases is not None or minutes is not None else campaign.options["cases"]
    with Engine.of(scheduler, jobs, limits) as engine:
        run = Run(cases=wanted, minutes=minutes, engine=engine, **made_of)
        campaign = campaign or Campaign.start(Path(reports))
        with watch(run, quiet=quiet) as progress:
            report = run_all(run, progress, campaign)
    path = campaign.folder.path
    _show(report, brief=quiet)
    passed = conclusion.draw(report.describe(), path, click.echo)
    for old in keep_newest(path.parent, keep) if keep else ():
        click.echo(f"deleted: {old}")
    click.echo(f"report: {path}/report.md, report.html")
    if any(finding.diagnosis.code == HARNESS for finding in report.findings):
        click.echo("backproof: the harness itself failed on a case; the finding says how, a bug of ours", err=True)
        sys.exit(INTERNAL)
    sys.exit(0 if passed else FINDINGS)


def _installed() -> tuple[str, ...]:
    """Return the default adapters whose framework is installed, naming on stderr what is left out and how to get it.

    In CI an absent framework is an error: nothing is skipped there.
    """
    wanted = [framework for framework in all_frameworks() if framework.default]
    missing = [framework.missing(framework.default) for framework in wanted if not framework.installed()]
    for error in missing:
        if os.environ.get("CI"):
            raise error
        click.echo(f"left out: {error}", err=True)
    if len(missing) == len(wanted):
        raise click.UsageError(f"no framework is installed. Do: {' or '.join(error.install for error in missing)}")
    return tuple(framework.default for framework in wanted if framework.installed())


@cli.command(name="check")
@click.argument("candidate", metavar="MODULE:NAME")
@click.option("--like", metavar="LAYER", help='The truth, such as "LayerNorm(eps=1e-5)". Left out: the derivative of its own forward.')
@click.option("--framework", type=click.Choice([framework.name for framework in all_frameworks() if framework.calls]),
              help=f"Not needed for {' or '.join(framework.kinds for framework in all_frameworks() if framework.kinds)}.")
@click.option("--precision", "precisions", multiple=True, metavar="NAME", help="May be repeated. Default: float64 and float32.")
@click.option("--cases", type=click.IntRange(min=1), default=100, show_default=True, help="Draws of shapes, values and conditions.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed gives the same cases.")
@click.option("--param", "params", multiple=True, metavar="MINE=THEIRS",
              help="A parameter's own name and the layer's, or without --like its shape: weight=5,4. Repeatable.")
@click.option("--shape", "shapes", multiple=True, metavar="N,...",
              help="A shape of the input, batch axis left out; of several inputs: 3,4/5. Repeatable. Default: as many as it takes.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds for each call, made in a process of its own.")
@click.option("--reports", type=click.Path(file_okay=False), help="Where a report is written to; none is otherwise.")
def check_command(candidate: str, like: str | None, framework: str | None, precisions: tuple[str, ...], cases: int, seed: int,
                  params: tuple[str, ...], shapes: tuple[str, ...], timeout: float | None, reports: str | None) -> None:
    """Check a layer or head that you wrote: a function, a torch.nn.Module, or hand-written NumPy."""
    from backproof.check.address import imported  # noqa: PLC0415
    from backproof.check.checking import check  # noqa: PLC0415
    from backproof.reference import library  # noqa: PLC0415
    from backproof.reference.layer import parse  # noqa: PLC0415

    library.load_all()
    given = {mine: theirs if like is not None else _shape("--param", theirs) for mine, theirs in map(_pair, params)}
    report = check(imported(candidate), None if like is None else parse(like), framework=framework,
                   precisions=precisions or ("float64", "float32"), cases=cases, seed=seed, params=given, timeout=timeout,
                   shapes=[tuple(_shape("--shape", one) for one in text.split("/")) for text in shapes] or None)
    _show(report)
    if reports is not None:
        click.echo(f"report: {report.save(reports)}/report.md")
    sys.exit(0 if report.ok else FINDINGS)


def _pair(text: str) -> tuple[str, str]:
    mine, found, theirs = text.partition("=")
    if not (mine and found and theirs):
        raise click.UsageError(f"--param: got {text!r}, expected MINE=THEIRS, such as gain=weight")
    return mine, theirs


def _shape(option: str, text: str) -> tuple[int, ...]:
    numbers = [n.strip() for n in text.strip("() ").split(",") if n.strip()]
    if not all(n.isdecimal() for n in numbers):
        raise click.UsageError(f"{option}: got {text!r}, expected the sizes of a shape, such as 3,4")
    return tuple(map(int, numbers))


@cli.command(name="replay")
@click.argument("path", type=FILE)
@click.option("--adapter", "adapters", multiple=True, metavar="NAME",
              help=f"Default: the finding's own, or {' and '.join(default_adapters())} for a case.")
def replay_command(path: Path, adapters: tuple[str, ...]) -> None:
    """Run the one case of a finding.json, case.json or report.json again and print its report."""
    case, named = load_case(path)
    report = replay(case, adapters or named or _installed()) if isinstance(case, Case) else _checked_again(case)
    _show(report)
    sys.exit(0 if report.ok else FINDINGS)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path), default="reports")
@click.option("--print", "only_print", is_flag=True, help="Print the path and open nothing.")
def show(folder: Path, only_print: bool) -> None:
    """Open the newest report at or below FOLDER (default: reports) in a browser."""
    from backproof.report.show import newest_page, open_page  # noqa: PLC0415

    page = newest_page(folder)
    click.echo(page)
    if not only_print and not open_page(page):
        click.echo("no browser to open it with: open the file by hand", err=True)


def _checked_again(probe: Probe) -> Report:
    from backproof.check.address import imported  # noqa: PLC0415
    from backproof.check.checking import check_again  # noqa: PLC0415

    if not probe.candidate:
        raise click.UsageError("the candidate of this finding stood in a script or a closure, and cannot be imported. Do: python repro.py")
    return check_again(probe, imported(probe.candidate))


@cli.command(name="diff")
@click.argument("old", type=click.Path(exists=True, path_type=Path))
@click.argument("new", type=click.Path(exists=True, path_type=Path))
@click.option("--format", "form", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
@click.option("--output", type=NEW_FILE, help="Write it there instead of showing it.")
@click.option("--strict", is_flag=True, help="Fail on what is to be looked at too: conventions and margins that moved.")
def diff_command(old: Path, new: Path, form: str, output: Path | None, *, strict: bool) -> None:
    """Compare two reports (files, their folders, or folders of which the newest counts): exit 1 where something got worse."""
    from backproof.compare.comparison import compare_reports  # noqa: PLC0415
    from backproof.compare.formats import FORMATS  # noqa: PLC0415
    from backproof.compare.reading import read_report  # noqa: PLC0415

    found = compare_reports(read_report(old), read_report(new), (old, new))
    text = FORMATS[form](found)
    if output is None:
        click.echo(text)
    else:
        output.write_text(f"{text.rstrip()}\n", encoding="utf-8")
    sys.exit(FINDINGS if found.worse or (strict and found.of("warning")) else 0)


@cli.command(name="baseline")
@click.argument("report", type=click.Path(exists=True, path_type=Path))
@click.argument("file", type=NEW_FILE)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where something else would be accepted.")
def baseline_command(report: Path, file: Path, *, check: bool) -> None:
    """Accept what a report shows: write it into a baseline FILE and say what that changes."""
    from backproof.compare.baseline import accepted, baseline_of, read_baseline, text_of  # noqa: PLC0415
    from backproof.compare.reading import read_report  # noqa: PLC0415

    before = read_baseline(file) if file.exists() else None
    after = baseline_of(read_report(report), before)
    said = accepted(before, after)
    for line in said:
        click.echo(line)
    numbers = {name: len(after[f"{name}s"]) for name in ("finding", "convention")}
    counts = " and ".join(f"{number} {name}{'' if number == 1 else 's'}" for name, number in numbers.items())
    if check:
        click.echo(f"{file} as it would be: {counts} are accepted")
        sys.exit(FINDINGS if said or before is None else 0)
    file.write_text(text_of(after), encoding="utf-8")
    click.echo(f"{file}: {counts} are accepted")


def _show(report: Report, *, brief: bool = False) -> None:
    from backproof.report.terminal import render, view  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    if sys.stdout.isatty() and not brief:
        Console().print(view(report))
    else:
        click.echo(render(report, brief=brief))


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; every failure ends in one line and its exit status."""
    try:
        cli.main(arguments, prog_name="backproof", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except (UsageError, MissingPackageError, OSError) as error:
        click.echo(f"backproof: {_one_line(error)}", err=True)
        sys.exit(USAGE)
    except Exception:  # noqa: BLE001  (the last resort: exit status 3 says that the harness itself failed)
        traceback.print_exc()
        click.echo("backproof: the harness itself failed; the traceback above is a bug of ours", err=True)
        sys.exit(INTERNAL)
    return 0


def _one_line(error: BaseException) -> str:
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(str(error).split()))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."

