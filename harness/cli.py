"""The command line. Exit status: 0 nothing wrong, 1 findings, 2 wrong usage or unreadable input, 3 the harness itself failed."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

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


@cli.command(name="replay")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--adapter", "adapters", multiple=True, metavar="NAME", help="Default: the finding's own, or torch and jax:jit for a case.")
def replay_command(path: Path, adapters: tuple[str, ...]) -> None:
    """Run the one case of a finding.json, case.json or report.json again and print its report."""
    case, named = load_case(path)
    report = replay(case, adapters or named or _installed())
    _show(report)
    sys.exit(0 if report.ok else FINDINGS)


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
    except (ValueError, ImportError, OSError) as error:
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
