"""The page of a report in a real headless Chromium: it opens, filters, prints, can be read by everybody, and lets nothing out."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pytest
from backproof.adapters import load
from backproof.judge.diagnosis import Diagnosis
from backproof.reference.activations import Hardsigmoid, ReLU
from backproof.reference.case import Case
from backproof.reference.containers import Residual
from backproof.reference.heads import MSELoss
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.trace import Trace
from backproof.report.finding import Finding
from backproof.report.page import page
from backproof.report.report import Report
from backproof.verify.run import Run

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), "")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]
needs_chromium = pytest.mark.skipif(
    not os.environ.get("CI") and not (CHROMIUM and find_spec("playwright")),
    reason="no chromium here (Debian: apt-get install chromium), or no playwright; in CI this is a failure")
HOSTILE = ("<script>planted = 1</script>", '"><img src=x onerror="planted = 2">', "</script><script>planted = 3</script>",
           "<!-- <script> planted = 4", "]]></style><svg onload=planted=5>", "<hr>' onclick='planted = 6",
           "https://example.org/&amp;\u202e\x00\udcff")


class Mistaken:
    """Torch with the weight gradient of every layer halved."""

    name = "torch"

    def run(self, case: Case) -> Trace:
        trace = load("torch").run(case)
        return replace(trace, layers=tuple(
            replace(s, d_params={**s.d_params, "weight": s.d_params["weight"] / 2}) if "weight" in s.d_params else s
            for s in trace.layers))


@pytest.fixture(scope="session")
def report() -> Report:
    """A real report of a planted mistake and a known discrepancy, with its finding in other layers, adapters and verdicts too."""
    run = Run([Mistaken()], 1, 0, ("float64", "float32"), None, None)
    run.examine(Case(Network((6,), (Linear(5), Hardsigmoid(), Residual(ReLU()), Linear(3)), MSELoss()), 1, "normal", 4, "float64"))
    found = run.report()
    (wrong,), (known,) = found.findings, found.known
    other = replace(wrong, layer="Conv2d", verdict="imprecise", subject="jax:jit", precision="float32")
    twice = replace(wrong, tensor="dx", diagnosis=Diagnosis("factor", "twice as large", condition="only at dawn"))
    return replace(found, findings=(wrong, other, twice), conventions=(replace(known, verdict="convention", known=""),))


def hostile(finding: Finding) -> Finding:
    """Return a finding whose every text is markup."""
    layer, adapter, path, sentence, tensor, condition, known = HOSTILE
    return replace(finding, layer=layer, subject=adapter, path=path, tensor=tensor, known=known,
                   diagnosis=Diagnosis(layer, sentence, f"y = x {path}", condition))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        launched = play.chromium.launch(executable_path=CHROMIUM or "chromium", args=ARGUMENTS)
        yield launched
        launched.close()


class Tab:
    """A page opened from disk, with everything it said on the console and every address it asked for."""

    def __init__(self, browser: Any, path: Path, fragment: str = "", **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page, self.path = self.context.new_page(), path
        self.said: list[str] = []
        self.asked: list[str] = []
        self.refused: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("requestfailed", lambda request: self.refused.append(request.url) if request.failure == "csp" else None)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri() + fragment)

    def shown(self) -> list[str]:
        """Return the ids of the findings that are to be seen."""
        return self.page.evaluate("[...document.querySelectorAll('details.finding')].filter(f => f.checkVisibility()).map(f => f.id)")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true: Playwright's own way is one that the page's policy blocks."""
        for _ in range(200):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(25)
        raise AssertionError(f"still not: {expression}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Every test ends so: nothing on the console, nothing asked for but the file itself."""
        self.context.close()
        if kind is not None:
            return
        assert self.said == []
        assert {url.partition("#")[0] for url in self.asked} == {self.path.as_uri()}


@pytest.fixture(scope="session")
def written(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.save(tmp_path_factory.mktemp("page")) / "report.html"


def test_a_report_is_written_with_its_page_before_its_json(report: Report, written: Path) -> None:
    """The folder of a report holds the page, complete when report.json is there, and it says what the report says."""
    assert written.stat().st_mtime_ns <= written.with_name("report.json").stat().st_mtime_ns
    text = written.read_text()
    assert text == page(report)
    assert f"{report.compared:,}" in text
    assert text.count('<details class="finding"') == 5
    assert "<math" in text
    assert "<svg" in text
    assert (written.parent / "repro.py").exists() is False
    assert 'href="wrong-torch-Linear-dweight-float64/"' in text
    assert (written.parent / "wrong-torch-Linear-dweight-float64").is_dir()


def test_a_report_without_numbers_has_a_page(report: Report) -> None:
    """Findings read back from disk have neither tensors nor case; an empty report compares nothing; both are said, not raised."""
    bare = replace(report, **{group: tuple(replace(f, step=None, certificate=None, case=None) for f in getattr(report, group))
                              for group in ("findings", "known", "conventions")})
    text = page(bare)
    assert text.count('<details class="finding"') == 5
    assert "<figure" not in text
    assert "nothing was compared" in page(Report())
    assert "There are none" in page(Report())


@needs_chromium
def test_the_page_opens_and_filters(browser: Any, written: Path) -> None:
    """Each filter and the search leave what they should, say how many, and stand in the address, which brings them back."""
    with Tab(browser, written) as tab:
        everything = tab.shown()
        assert len(everything) == 5
        assert tab.page.locator("#shown").inner_text() == f"{len(everything)} findings"
        for name, value in (("verdict", "imprecise"), ("adapter", "jax:jit"), ("layer", "Conv2d")):
            tab.page.locator(f"select[name={name}]").select_option(value)
            assert tab.shown() == ["imprecise-jax_jit-Conv2d-dweight-float32"], name
            assert tab.page.locator("#shown").inner_text() == f"1 finding of {len(everything)} shown"
            assert tab.page.evaluate("location.hash") == f"#{name}={value.replace(':', '%3A')}"
            tab.page.get_by_role("button", name="Clear").click()
            tab.wait("!location.hash")
            assert tab.shown() == everything
        tab.page.locator("select[name=precision]").select_option("float64")
        tab.page.get_by_role("searchbox").fill("TWICE large")
        assert tab.shown() == ["wrong-torch-Linear-dx-float64"]
        assert tab.page.locator("section.group").filter(visible=True).count() == 1
        address = tab.page.evaluate("location.hash")
        tab.page.get_by_role("searchbox").fill("no such words")
        assert tab.shown() == []
        assert tab.page.locator("#shown").inner_text() == f"0 findings of {len(everything)} shown"
    with Tab(browser, written, address) as tab:
        assert tab.shown() == ["wrong-torch-Linear-dx-float64"]
        assert tab.page.get_by_role("searchbox").input_value() == "TWICE large"


@needs_chromium
def test_a_link_points_to_a_finding(browser: Any, written: Path) -> None:
    """The name of a finding in the address opens it, also where a filter hides it; a square of the table filters for its tensor."""
    with Tab(browser, written, "#imprecise-jax_jit-Conv2d-dweight-float32") as tab:
        one = tab.page.locator("#imprecise-jax_jit-Conv2d-dweight-float32")
        assert one.get_attribute("open") is not None
        assert one.locator("summary").first.evaluate("e => e === document.activeElement")
        tab.page.locator("select[name=verdict]").select_option("wrong")
        assert not one.is_visible()
        tab.page.evaluate("location.hash = '#imprecise-jax_jit-Conv2d-dweight-float32'")
        one.wait_for(state="visible")
        assert tab.page.locator("select[name=verdict]").input_value() == ""
        assert tab.page.evaluate("location.hash") == "#imprecise-jax_jit-Conv2d-dweight-float32"
        tab.page.locator("a.square[href*='layer=Linear&tensor=dweight']").first.click()
        tab.wait("document.querySelector('select[name=layer]').value")
        assert tab.shown() == ["wrong-torch-Linear-dweight-float64"]


@needs_chromium
def test_the_page_works_from_the_keyboard(browser: Any, written: Path) -> None:
    """`/` goes to the search, Escape empties it, and a finding is reached by Tab and opened by Enter."""
    with Tab(browser, written) as tab:
        focused = "document.activeElement.name || document.activeElement.textContent.trim()"
        tab.page.keyboard.press("Tab")
        assert tab.page.evaluate(focused) == "Skip to the findings"
        tab.page.keyboard.press("/")
        assert tab.page.evaluate(focused) == "q"
        tab.page.keyboard.type("conv2d/")
        assert tab.shown() == []
        tab.page.keyboard.press("Backspace")
        assert tab.shown() == ["imprecise-jax_jit-Conv2d-dweight-float32"]
        for _ in range(8):  # five filters, two buttons, the finding
            tab.page.keyboard.press("Tab")
        one = tab.page.locator("#imprecise-jax_jit-Conv2d-dweight-float32")
        tab.page.keyboard.press("Enter")
        assert one.get_attribute("open") is not None
        assert one.locator("summary").first.evaluate("e => e.matches(':focus-visible') && getComputedStyle(e).outlineStyle") == "solid"
        tab.page.keyboard.press("/")
        tab.page.keyboard.press("Escape")
        assert len(tab.shown()) == 5


@needs_chromium
def test_what_a_finding_shows(browser: Any, written: Path, report: Report) -> None:
    """The first finding is open: diagnosis, equation as MathML, the network with the guilty layer, heat map, numbers and the script."""
    with Tab(browser, written) as tab:
        one = tab.page.locator("details.finding").first
        body = one.inner_text()
        finding = report.findings[0]
        assert finding.diagnosis.sentence in body
        assert repr(finding.actual) in body
        assert one.locator("math").count() >= 1
        assert one.locator(".box.guilty .label").all_inner_texts() == ["Linear"]
        assert one.locator(".box:not(.guilty) .label").all_inner_texts().count("ReLU") == 1
        label = one.get_by_role("img").get_attribute("aria-label")
        assert label is not None
        assert f"{finding.entries[0]} of {finding.entries[1]} entries outside" in label
        assert one.locator(".map path").first.evaluate("e => e.getBoundingClientRect().width") > 20
        assert one.locator("td.worst.out").count() == 1
        third = tab.page.locator("#wrong-torch-Linear-dx-float64")
        third.locator("summary").first.click()
        assert "It shows only at dawn." in third.inner_text()


@needs_chromium
def test_the_script_can_be_copied(browser: Any, written: Path) -> None:
    """The button puts the very text of repro.py on the clipboard, and says so."""
    with Tab(browser, written, permissions=["clipboard-read", "clipboard-write"]) as tab:
        tab.page.get_by_role("button", name="Copy repro.py").first.click()
        tab.wait("document.getElementById('said').textContent === 'Copied.'")
        copied = tab.page.evaluate("navigator.clipboard.readText()")
        assert copied == (written.parent / "wrong-torch-Linear-dweight-float64" / "repro.py").read_text()


@needs_chromium
@pytest.mark.parametrize("detailed", [100, 1])
def test_markup_in_names_and_messages_stays_text(browser: Any, report: Report, detailed: int, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts, images, comments and quotes planted in every text of a report are shown as they stand, in findings folded or not."""
    monkeypatch.setattr("backproof.report.page.DETAILED", detailed)
    planted = tuple(hostile(f) for f in report.findings)
    tallies = dict(report.tallies) | {(HOSTILE[1], HOSTILE[2], HOSTILE[0], HOSTILE[4]): next(iter(report.tallies.values()))}
    path = replace(report, findings=(planted[0], report.findings[1], *planted[1:]), known=planted, tallies=tallies, stale=HOSTILE,
                   skipped=dict.fromkeys(HOSTILE, 1), options={"adapters": list(HOSTILE), HOSTILE[0]: HOSTILE[1]},
                   environment={HOSTILE[2]: HOSTILE[3]}).save(tmp_path) / "report.html"
    with Tab(browser, path) as tab:
        tab.page.get_by_role("button", name="Open all shown").click()
        tab.page.locator("details.finding[open] .body").nth(6).wait_for()
        assert tab.page.evaluate("typeof planted") == "undefined"
        assert tab.page.evaluate("[...document.scripts].filter(s => s.type !== 'text/plain').length") == 1
        assert tab.page.locator("img, [onclick], [onload], [onerror], iframe, object, link, hr").count() == 0
        one = tab.page.locator("details.finding").nth(2)
        text = one.text_content()
        for word in (*HOSTILE[:6], "https://example.org/&amp;"):
            assert word in text
        tab.page.locator("select[name=layer]").select_option(HOSTILE[0])
        assert len(tab.shown()) == 6
        tab.page.get_by_role("searchbox").fill(HOSTILE[1])
        assert len(tab.shown()) == 6
        tab.page.reload()
        assert len(tab.shown()) == 6
        assert tab.page.evaluate("typeof planted") == "undefined"


@needs_chromium
def test_the_page_may_load_nothing(browser: Any, written: Path) -> None:
    """The page's own policy blocks what a planted piece of markup would try: scripts, images, styles, connections, forms, frames."""
    with Tab(browser, written) as tab:
        blocked = tab.page.evaluate("""async () => {
            const seen = [];
            document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
            const add = (html) => document.body.append(document.createRange().createContextualFragment(html));
            add("<img src='https://example.org/a.png'>");
            add("<script>globalThis.planted = 1</script>");
            add("<link rel=stylesheet href='https://example.org/a.css'>");
            add("<iframe src='https://example.org/'></iframe>");
            add("<form action='https://example.org/' target=_self></form>");
            document.forms[document.forms.length - 1].submit();
            await fetch("https://example.org/").catch(() => 0);
            for (let turn = 0; turn < 400 && seen.length < 6; turn++) await new Promise((done) => setTimeout(done, 25));
            return [seen.sort(), typeof planted];
        }""")
        assert blocked == [["connect-src", "form-action", "frame-src", "img-src", "script-src-elem", "style-src-elem"], "undefined"]
        assert len(tab.said) >= 6  # Chromium says each of them
        assert tab.page.url == written.as_uri()
        assert {url.rpartition("/")[2] for url in tab.asked if url in tab.refused} == {"a.png", "a.css"}
        tab.asked = [url for url in tab.asked if url not in tab.refused]
        tab.said.clear()


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_in_light_and_dark(browser: Any, written: Path, scheme: str) -> None:
    """Axe finds nothing to object to, contrast among it, with every finding open; the dark page is dark."""
    from axe_playwright_python.sync_playwright import Axe

    with Tab(browser, written, color_scheme=scheme, reduced_motion="reduce") as tab:
        tab.page.get_by_role("button", name="Open all shown").click()
        tab.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] if scheme == "light" else ["color-contrast"]
        found = Axe().run(tab.page, options={"runOnly": rules})
        assert [(v["id"], [n["html"] for n in v["nodes"][:3]]) for v in found.response["violations"]] == []
        assert len(found.response["passes"]) >= (20 if scheme == "light" else 1)
        background = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", background)[:3]))
        assert brightness < 150 if scheme == "dark" else brightness > 600


@needs_chromium
def test_the_page_prints(browser: Any, written: Path) -> None:
    """On paper every finding is open with its script, without the filters, and closed again afterwards; dark is not printed dark."""
    with Tab(browser, written, color_scheme="dark") as tab:
        count = "globalThis.printed = document.querySelectorAll('details.finding[open] .script[open]').length"
        tab.page.evaluate(f"addEventListener('beforeprint', () => {{ {count} }})")
        assert tab.page.pdf(format="A4").startswith(b"%PDF")
        assert tab.page.evaluate("printed") >= 3
        assert tab.page.locator("details.finding[open]").count() == 1
        tab.page.emulate_media(media="print")
        assert not tab.page.locator("#filters").is_visible()
        assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@needs_chromium
@pytest.mark.parametrize("width", [360, 800])
def test_the_page_fits_a_narrow_screen(browser: Any, written: Path, width: int) -> None:
    """Nothing but tables, code and formulas is wider than the screen, and those scroll by themselves."""
    with Tab(browser, written, viewport={"width": width, "height": 740}) as tab:
        tab.page.get_by_role("button", name="Open all shown").click()
        tab.page.locator("details.finding[open] .body").nth(2).wait_for()
        tab.page.evaluate("document.querySelectorAll('.finding').forEach(e => { e.style.contentVisibility = 'visible' })")
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


@needs_chromium
def test_thousands_of_findings_filter_and_open(browser: Any, report: Report, tmp_path: Path) -> None:
    """Of 3,000 findings the first are in detail; the others open too, say what was left out and where it lies, and are found by words."""
    first = report.findings[0]
    many = tuple(replace(first, layer=f"Layer{n % 50}", count=n + 1, verdict=("wrong", "imprecise")[n % 2], path=f"layers.{n}")
                 for n in range(3000))
    path = tmp_path / "report.html"
    path.write_text(page(replace(report, findings=many, known=(), conventions=())), encoding="utf-8")
    assert path.stat().st_size < 15e6
    with Tab(browser, path) as tab:
        assert "for the first 100 findings" in tab.page.locator("main").inner_text()
        assert tab.page.locator("details.finding .body").count() == 100
        tab.page.locator("select[name=layer]").select_option("Layer7")
        assert tab.page.locator("#shown").inner_text() == "60 findings of 3,000 shown"
        tab.page.get_by_role("searchbox").fill("2,908 times")
        assert len(tab.shown()) == 1
        one = tab.page.locator("details.finding:not([hidden])")
        one.locator("summary").first.click()
        one.locator(".body").wait_for()
        assert "layers.2907" in one.inner_text()
        assert "Left out here" in one.inner_text()
        assert one.locator("math").count() >= 1
