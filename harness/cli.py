"""The command line. Exit status: 0 nothing wrong, 1 findings, 2 wrong usage or unreadable input, 3 the harness itself failed."""

from __future__ import annotations

import json
import os
import sys
import traceback
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import click

from .probe import Probe
from .reference.case import Case
from .replay import load_case, replay
from .report import Report

__all__ = ["main"]

FINDINGS, USAGE, INTERNAL = 1, 2, 3


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="backproof")
def cli() -> None:
    """Is this gradient right? Hand-derived backpropagation as ground truth for PyTorch, JAX and custom layers."""


def _split(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    return [name.strip() for name in value.split(",") if name.strip()] if value else None


@cli.command()
@click.option("--adapter", "adapters", multiple=True, metavar="NAME", help="Framework and mode; repeatable. Default: torch, jax:jit.")
@click.option("--cases", type=click.IntRange(min=1), default=200, show_default=True, help="Draws of values, four through each network.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed gives the same cases.")
@click.option("--precision", "precisions", multiple=True, metavar="NAME", help="May be repeated. Default: float64 and float32.")
@click.option("--layers", callback=_split, metavar="NAME,...", help="Draw only these layers.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Stop drawing cases after so many minutes.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Worker processes; the report is the same.")
@click.option("--reports", type=click.Path(file_okay=False), default="reports", show_default=True, help="Where the report goes.")
def verify(adapters: tuple[str, ...], cases: int, seed: int, precisions: tuple[str, ...], layers: list[str] | None,
           minutes: float | None, jobs: int, reports: str) -> None:  # fmt: skip
    """Check frameworks over random networks and write a report."""
    from .disk import ReportFolder  # noqa: PLC0415
    from .progress import watch  # noqa: PLC0415
    from .run import Run, run_all  # noqa: PLC0415

    run = Run(adapters or _installed(), cases, seed, precisions or ("float64", "float32"), layers, minutes, jobs)
    folder = ReportFolder(Path(reports))
    with watch(run) as progress:
        report = run_all(run, progress)
    path = folder.write(report)
    _show(report)
    click.echo(f"report: {path}/report.md")
    sys.exit(0 if report.ok else FINDINGS)


def _installed() -> tuple[str, ...]:
    """Return the default adapters whose framework is installed, naming on stderr what is left out and how to get it.

    In CI an absent framework is an error: nothing is skipped there.
    """
    from .adapters import MissingFrameworkError, load  # noqa: PLC0415

    found = []
    for name in ("torch", "jax:jit"):
        try:
            load(name)
        except MissingFrameworkError as error:
            if os.environ.get("CI"):
                raise
            click.echo(f"left out: {error}", err=True)
        else:
            found.append(name)
    if not found:
        raise click.UsageError('no framework is installed. Do: pip install "backproof[torch]" or pip install "backproof[jax]"')
    return tuple(found)


@cli.command(name="check")
@click.argument("candidate", metavar="MODULE:NAME")
@click.option("--like", metavar="LAYER", help='The truth, such as "LayerNorm(eps=1e-5)". Left out: the derivative of its own forward.')
@click.option("--framework", type=click.Choice(["torch", "jax", "numpy"]), help="Not needed for a torch.nn.Module.")
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
                  params: tuple[str, ...], shapes: tuple[str, ...], timeout: float | None, reports: str | None) -> None:  # fmt: skip
    """Check a layer or head that you wrote: a function, a torch.nn.Module, or hand-written NumPy."""
    from .checker import check  # noqa: PLC0415
    from .reference import library  # noqa: PLC0415
    from .reference.layer import parse  # noqa: PLC0415

    library.load_all()
    given = {mine: theirs if like is not None else _shape("--param", theirs) for mine, theirs in map(_pair, params)}
    report = check(_imported(candidate), None if like is None else parse(like), framework=framework,
                   precisions=precisions or ("float64", "float32"), cases=cases, seed=seed, params=given, timeout=timeout,
                   shapes=[tuple(_shape("--shape", one) for one in text.split("/")) for text in shapes] or None)  # fmt: skip
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


def _imported(name: str) -> Any:
    """Return what `MODULE:NAME` names, looked for from the current folder on; raise UsageError for what is not there."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise click.UsageError(f"the candidate: got {name!r}, expected MODULE:NAME, such as my_layers:layer_norm")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return attrgetter(attribute)(import_module(module))
    except ModuleNotFoundError as error:
        raise click.UsageError(f"the candidate: no module {error.name!r} here or among the installed ones") from error
    except AttributeError as error:
        raise click.UsageError(f"the candidate: {error}") from error


@cli.command(name="replay")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--adapter", "adapters", multiple=True, metavar="NAME", help="Default: the finding's own, or torch and jax:jit for a case.")
def replay_command(path: Path, adapters: tuple[str, ...]) -> None:
    """Run the one case of a finding.json, case.json or report.json again and print its report."""
    case, named = load_case(path)
    report = replay(case, adapters or named or _installed()) if isinstance(case, Case) else _checked_again(case)
    _show(report)
    sys.exit(0 if report.ok else FINDINGS)


def _checked_again(probe: Probe) -> Report:
    from .checker import check_again  # noqa: PLC0415

    if not probe.candidate:
        raise click.UsageError("the candidate of this finding stood in a script or a closure, and cannot be imported. Do: python repro.py")
    return check_again(probe, _imported(probe.candidate))


def _show(report: Report) -> None:
    from rich.console import Console  # noqa: PLC0415

    from .text import render, view  # noqa: PLC0415

    if sys.stdout.isatty():
        Console().print(view(report))
    else:
        click.echo(render(report))


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
    except (ValueError, TypeError, ImportError, OSError) as error:
        if _ours(error):
            click.echo(f"backproof: {_one_line(error)}", err=True)
            sys.exit(USAGE)
        _internal()
    except Exception:  # noqa: BLE001  (the last resort: exit status 3 says that the harness itself failed)
        _internal()
    return 0


def _ours(error: BaseException) -> bool:
    """Say whether an error speaks of the user's input: bad JSON, a name we do not know, a folder we cannot write."""
    if isinstance(error, OSError | json.JSONDecodeError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and any(part in frames[-1].filename for part in ("harness", "reference", "adapters", "backproof"))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _internal() -> None:
    traceback.print_exc()
    click.echo("backproof: the harness itself failed; the traceback above is a bug of ours", err=True)
    sys.exit(INTERNAL)
