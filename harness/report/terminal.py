"""The report as a terminal and a notebook show it."""

from __future__ import annotations

from io import StringIO
from typing import Any

from backproof.report.excess import text_map
from backproof.report.finding import HANDWRITTEN, Finding, times
from backproof.report.results import Results, Tally
from backproof.report.schema import kind_of
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

__all__ = ["console", "printable", "render", "render_html", "rows_by_layer", "view"]

COLOURS = {"agrees": "green", "convention": "cyan", "inconclusive": "yellow", "imprecise": "magenta", "wrong": "bold red",
           "nonfinite": "bold red", "nondeterministic": "bold red", "error": "bold red"}
HTML = '<pre style="white-space: pre; overflow-x: auto; line-height: normal; font-family: Menlo, Consolas, monospace">{code}</pre>'


def render(report: Results, width: int = 110, *, brief: bool = False) -> str:
    """Return the report as plain text; a brief one leaves out the table of what was compared and what is explained."""
    page = StringIO()
    console(page, width).print(Group(*_panels(report), _summary(report)) if brief else view(report))
    return page.getvalue().rstrip()


def render_html(report: Results, width: int = 110) -> str:
    """Return the report as a piece of HTML, with the colours of a terminal; what stands in names is text, never markup."""
    page = console(StringIO(), width, record=True)
    page.print(view(report))
    return page.export_html(inline_styles=True, code_format=HTML)


def console(page: StringIO, width: int, **options: Any) -> Console:
    """Return a console that writes to a page and nowhere else: in a notebook, one would display it instead."""
    return Console(file=page, width=width, color_system=None, force_jupyter=False, legacy_windows=False, emoji=False, markup=False,
                   highlight=False, **options)


def printable(text: str) -> str:
    """Return text in one line, with what would steer a terminal or is not allowed in XML replaced."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


def view(report: Results) -> RenderableType:
    """Return the report as a rich renderable."""
    parts: list[RenderableType] = [_table(report), *_panels(report)]
    if report.known:
        parts.append(_listing("Known discrepancies (explained in known/*.toml)", report.known))
    if report.conventions:
        parts.append(_listing("Conventions (valid subgradients other than the reference's own)", report.conventions))
    parts += [Text(f"Stale known discrepancy: {name} matched nothing although it was looked for", style="yellow") for name in report.stale]
    parts.append(_summary(report))
    return Group(*parts)


def rows_by_layer(report: Results) -> dict[tuple[str, str, str], Tally]:
    """Return the tallies by adapter, precision and layer, all tensors of a layer together."""
    rows: dict[tuple[str, str, str], Tally] = {}
    for (adapter, precision, layer, _), tally in sorted(report.tallies.items()):
        rows.setdefault((adapter, precision, layer), Tally()).merge(tally)
    return rows


def _table(report: Results) -> Table:
    """One line per adapter and precision: a run compares hundreds of tensors, which report.json lists one by one."""
    table = Table(title="What was compared", title_justify="left", title_style="bold")
    for name, justify in ((_kind(report), "left"), ("precision", "left"), ("layers", "right"), ("entries", "right"), ("agree", "right"),
                          ("convention", "right"), ("inconclusive", "right"), ("outside", "right"), ("margin", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    groups: dict[tuple[str, str], list[Tally]] = {}
    for (adapter, precision, _), tally in rows_by_layer(report).items():
        groups.setdefault((adapter, precision), []).append(tally)
    for (adapter, precision), tallies in groups.items():
        compared, conventions, inconclusive, outside = (sum(getattr(t, n) for t in tallies)
                                                        for n in ("compared", "conventions", "inconclusive", "outside"))
        agree = compared - conventions - inconclusive - outside
        table.add_row(Text(adapter), precision, str(len(tallies)), f"{compared:,}", f"{agree:,}", f"{conventions:,}", f"{inconclusive:,}",
                      f"{outside:,}", f"{max(t.margin for t in tallies):.3f}")
    return table


def _kind(report: Results) -> str:
    """Return what the run judged: adapters or a candidate."""
    return next((kind_of(subject) for subject, *_ in report.tallies), "adapter")


def _panels(report: Results) -> list[Panel]:
    return [_panel(finding, number) for number, finding in enumerate(report.findings, 1)]


def _place(finding: Finding) -> str:
    """Say where a finding is: a layer's place and tensor, or what a function of a hand-written model returned."""
    if finding.layer == HANDWRITTEN:
        function = finding.tensor in {"loss", "gradients"}
        return f"function {finding.tensor}()" if function else f"gradient {finding.tensor} returned by {finding.path}()"
    where = f"{finding.layer} at {finding.path}" if finding.layer else "the run"
    return f"{where}, tensor {finding.tensor}" if finding.tensor else where


def _panel(finding: Finding, number: int) -> Panel:
    lines = Text()
    lines.append(f"{_place(finding)}, on {finding.subject} in {finding.precision}; seen {times(finding.count)}\n")
    if finding.tensor and finding.verdict not in {"error", "nondeterministic"} and finding.entries[1]:
        index = "".join(f"[{i}]" for i in finding.index)
        lines.append(f"{finding.entries[0]} of {finding.entries[1]} entries outside; worst {finding.tensor}{index}\n")
        lines.append(f"  actual    {finding.actual!r}\n  expected  {finding.expected!r} +- {finding.bound:.3g}\n")
        lines.append(f"  excess    {finding.excess:.3g} times the bound")
        lines.append(f"; about {finding.digits:.1f} decimal digits lost\n" if finding.verdict == "imprecise" else "\n")
    lines.append(f"diagnosis [{finding.diagnosis.code}]: {finding.diagnosis.sentence}", style="bold")
    if finding.diagnosis.equation:
        lines.append(f"\n  should be {finding.diagnosis.equation}")
    if finding.diagnosis.condition:
        lines.append(f"\n  shows {finding.diagnosis.condition}")
    if finding.diagnosis.code == "unknown" and (map_ := text_map(finding)):
        lines.append(f"\n{map_}")
    if finding.suspects_reference:
        lines.append("\nAnother framework is off by the same amount: the reference itself is the suspect.", style="yellow")
    if finding.case is not None:
        lines.append(f"\nsmallest case: {finding.case}")
    return Panel(lines, title=Text(f"{number}. {finding.title}"), title_align="left", border_style=COLOURS[finding.verdict])


def _listing(title: str, findings: tuple[Finding, ...]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_lines=False)
    kind = kind_of(findings[0].subject) if findings else "adapter"
    for name in (kind, "layer", "tensor", "verdict", "seen", "why"):
        table.add_column(name, overflow="fold")
    for f in findings:
        verdict = Text(f.verdict, style=COLOURS[f.verdict])
        names = (Text(name) for name in (f.subject, f.layer, f.tensor))  # brackets in a name are no markup
        table.add_row(*names, verdict, f"{f.count:,}", Text(f.known or f.diagnosis.sentence))
    return table


def _summary(report: Results) -> Text:
    test = report.self_test
    text = Text()
    reached = ", ".join(f"{len(counts):,} {what}" for what, counts in report.coverage.items())
    if reached:
        text.append(f"reached: {reached}\n")
    if report.interrupted:
        text.append("Interrupted: this is a report of what was done so far.\n", style="yellow")
    if isinstance(truth := report.options.get("truth"), list):
        text.append("".join(f"truth: {line}\n" for line in truth))
    for reason, count in report.skipped.items():
        text.append(f"not judged: {count:,} - {reason}\n")
    style = "green" if test.ok else "bold red"
    hidden = f"; {test.hidden} more lie within the rounding of their precision" if test.hidden else ""
    caught = f"{test.caught} caught, {test.blamed} blamed on the right layer and tensor{hidden}"
    if test.planted:
        text.append(f"self-test: {test.planted} planted mistakes, {caught}\n", style=style)
    for missed in test.missed:
        text.append(f"  missed: {missed}\n", style="red")
    spent = ", ".join(f"{name} {s:.1f} s" for name, s in report.seconds.items())
    text.append(f"{report.cases:,} cases, {report.compared:,} entries compared ({spent})\n")
    verdict = "nothing was compared" if not report.compared else report.verdict
    count = len(report.findings)
    ending = f"{count} unexplained finding{'s' if count > 1 else ''}" if count else "no unexplained finding"
    text.append(f"{'OK' if report.ok else 'NOT OK'}: {verdict}; {ending}", style="bold green" if report.ok else "bold red")
    return text
