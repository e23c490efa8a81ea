"""How long the page of thousands of findings takes: to write, and in a headless Chromium to open, to filter and to search."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from backproof.adapters import load
from backproof.reference.activations import ReLU
from backproof.reference.case import Case
from backproof.reference.heads import MSELoss
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.trace import Trace
from backproof.report.finding import Finding
from backproof.report.page import page
from backproof.report.report import Report
from backproof.verify.run import Run
from document import conditions, milliseconds, table, write

SIZES = (100, 1_000, 10_000)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]
TIMED = """async (change) => {
  const settled = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  await settled();
  const start = performance.now();
  const form = document.getElementById("filters");
  form.elements[change[0]].value = change[1];
  form.dispatchEvent(new Event("input", { bubbles: true }));
  const script = performance.now() - start;
  await settled();
  return [script, performance.now() - start, document.getElementById("shown").textContent];
}"""
CHANGES = {"filter by layer": ("layer", "Layer7"), "and by verdict": ("verdict", "imprecise"), "all again": ("verdict", ""),
           "search, first": ("q", "dweight 12"), "search, again": ("q", "dweight 3")}


class Mistaken:
    """Torch with a weight gradient of half the size."""

    name = "torch"

    def run(self, case: Case) -> Trace:
        trace = load("torch").run(case)
        return replace(trace, layers=tuple(
            replace(s, d_params={**s.d_params, "weight": s.d_params["weight"] / 2}) if "weight" in s.d_params else s
            for s in trace.layers))


def report_of(count: int) -> Report:
    """Return a real run's report with its finding in as many variants, all with their tensors."""
    run = Run([Mistaken()], 1, 0, ("float64",), None, None)
    run.examine(Case(Network((24,), (Linear(40), ReLU(), Linear(3)), MSELoss()), 1, "normal", 16, "float64"))
    found = run.report()
    return replace(found, findings=tuple(_variant(found.findings[0], n) for n in range(count)))


def _variant(finding: Finding, n: int) -> Finding:
    verdict = ("wrong", "imprecise", "nonfinite")[n % 3]
    return replace(finding, layer=f"Layer{n % 70}", adapter=("torch", "jax:jit", "torch:compile")[n % 5 % 3], verdict=verdict, count=n + 1,
                   precision=("float64", "float32")[n % 2])


def measure(count: int, folder: Path) -> tuple[Any, ...]:
    """Write one page, open it in a fresh browser, and return a row of the table."""
    from playwright.sync_api import sync_playwright

    report = report_of(count)
    start = perf_counter()
    text = page(report)
    written = perf_counter() - start
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        tab = browser.new_page()
        tab.goto(path.as_uri())
        tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        opened = tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd / 1000")
        painted = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000")
        changed = [tab.evaluate(TIMED, list(change))[1] / 1000 for change in CHANGES.values()]
        browser.close()
    return (f"{count:,}", f"{len(text) / 1e6:.1f}", *map(milliseconds, (written, painted, opened, *changed)))


def main() -> None:
    """Print the table, or write it into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the section into docs/benchmarks.md")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parser.parse_args()
    if CHROMIUM is None:
        raise SystemExit("no chromium here. Do: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(count, Path(folder)) for count in options.sizes]
    text = "## The page of a report\n\nMilliseconds to write `report.html`, and in a headless Chromium to its first paint, until all of "
    text += "it is loaded, and from a change of the filters to the next frame.\n\n"
    text += table(("findings", "MB", "written", "first paint", "loaded", *CHANGES), rows) + "\n" + conditions()
    if options.write:
        write("page", text)
    else:
        print(text)


if __name__ == "__main__":
    main()
