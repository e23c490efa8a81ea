"""A comparison as a terminal, a pull request or a program reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import StringIO
from typing import Any

from backproof.compare.comparison import Diff
from backproof.compare.rules import WEIGHTS, Line
from backproof.report.templating import TEMPLATES
from backproof.report.terminal import console, printable
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["FORMATS", "as_json", "as_markdown", "as_text", "markdown"]

STYLES = {"worse": "bold red", "warning": "yellow", "better": "green", "note": "dim"}
LINES = {"worse": 200, "warning": 100, "better": 100, "note": 20}  # shown of each weight
SPECIAL = re.compile(r"([\\`*_\[\]|#~@])")


def as_text(diff: Diff, width: int = 110) -> str:
    """Return a comparison as plain text."""
    page = StringIO()
    console(page, width).print(Group(*_parts(diff)))
    return page.getvalue().rstrip()


def as_markdown(diff: Diff) -> str:
    """Return a comparison for a pull request; what stands in names is text, never markup."""
    return TEMPLATES.get_template("diff.md.j2").render(diff=diff, groups=_groups(diff)).rstrip() + "\n"


def as_json(diff: Diff) -> str:
    """Return a comparison as docs/ci.md documents it."""
    return json.dumps(diff.describe(), indent=2, allow_nan=False)


FORMATS: dict[str, Callable[[Diff], str]] = {"text": as_text, "markdown": as_markdown, "json": as_json}


def markdown(text: Any) -> str:
    """Return text that Markdown shows as it is, in one line."""
    plain = printable(str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\1", plain)


TEMPLATES.filters["md"] = markdown


def _groups(diff: Diff) -> list[tuple[str, str, tuple[Line, ...], int]]:
    """Return the lines to show of each weight, and how many more there are."""
    groups = [(weight, meaning, diff.of(weight)) for weight, meaning in WEIGHTS.items()]
    return [(weight, meaning, lines[: LINES[weight]], max(len(lines) - LINES[weight], 0)) for weight, meaning, lines in groups if lines]


def _parts(diff: Diff) -> list[RenderableType]:
    head = Text()
    for side in (diff.old, diff.new):
        head.append(f"{printable(side.name)}: {printable(side.source)}{', ' if side.source else ''}{side.cases:,} cases\n")
    head.append("".join(f"{printable(name)}: {printable(old)} -> {printable(new)}\n" for name, (old, new) in diff.versions.items()))
    head.append("".join(f"{printable(sentence)}\n" for sentence in diff.runs))
    parts: list[RenderableType] = [head]
    for weight, meaning, lines, left in _groups(diff):
        title = Text(f"{meaning[0].upper()}{meaning[1:]}", style=STYLES[weight])
        table = Table(title=title, title_justify="left", show_header=False)
        for line in lines:
            cells = (str(line.about), f"{line.change} {line.kind}", line.sentence)
            table.add_row(*(Text(printable(cell)) for cell in cells))
        parts += [table, Text(f"{left:,} more: --format json has all\n" if left else "")]
    return [*parts, Text(diff.verdict, style=STYLES["worse" if diff.worse else "better"])]
