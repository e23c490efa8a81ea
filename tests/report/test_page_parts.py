"""The parts of the page: equations that keep what they say, heat maps, drawings and squares."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from backproof.draw.probe import Probe
from backproof.judge.certificate import Certificate
from backproof.judge.derivation import derivation
from backproof.judge.diagnosis import Diagnosis
from backproof.judge.judgement import Judgement
from backproof.reference.activations import ReLU, Tanh
from backproof.reference.case import Case
from backproof.reference.containers import Parallel, Residual, Sequential, Shared
from backproof.reference.heads import MSELoss
from backproof.reference.layer import REGISTRY, Layer
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.rounding import Arithmetic, Rounded, precision_named
from backproof.reference.wiring import Concatenate
from backproof.report.excess import LEVELS
from backproof.report.finding import Finding
from backproof.report.page.drawing import Box, drawing
from backproof.report.page.equation import UnreadableError, parts, typeset
from backproof.report.page.heat import heat_map, window
from backproof.report.page.matrix import below, matrix
from backproof.report.report import Report
from backproof.report.results import Tally

WRITTEN = {"∑": "sum", "∏": "prod", "≤": "<=", "≥": ">=", "≠": "!=", "±": "+-", "−": "-", "·": "*", "…": "...", "α": "alpha", "β": "beta",
           "γ": "gamma", "δ": "delta", "ε": "eps", "λ": "lambda", "μ": "mu", "φ": "phi", "Φ": "Phi", "π": "pi", "σ": "sigma",
           "θ": "theta", "\u2032": "'", "\u2061": "", "\u2062": ""}
PLAIN = {"Transpose output", "Transpose dx"}
"""Derivations whose notation stays plain text: indices with dots."""


def derivations() -> Iterator[tuple[str, str]]:
    """Yield every equation that a finding about a layer can carry."""
    for name, cls in sorted(REGISTRY.items()):
        if issubclass(cls, Layer) and cls.__module__.startswith("backproof.reference."):
            for layer, *shapes in cls.examples():
                params = [p for p in layer.parameters(*shapes) if "." not in p]
                for tensor in (*layer.output_names, *(f"d{n}" for n in (*layer.input_names, *params))):
                    if equation := derivation(layer, tensor):
                        yield f"{name} {tensor}", equation


EQUATIONS = {equation: where for where, equation in derivations()}


def spelt(element: Element) -> str:  # noqa: PLR0911  (one per element)
    """Return MathML in the notation it was read from, brackets that only hold an index or a power together as round ones."""
    inside = [spelt(child) for child in element]
    text = "".join(WRITTEN.get(c, c) for c in (element.text or "").replace("\u00a0", ""))
    match element.tag:
        case "mi" | "mn" | "mo" | "mtext":
            return WRITTEN.get(element.text or "", text)
        case "mspace":
            return ""
        case "mfrac":
            return "/".join(inside)
        case "msqrt":
            return f"sqrt({''.join(inside)})"
        case "msub" | "munder":
            return f"{inside[0]}_{held(element[1])}"
        case "msup":
            return inside[0] + ("'" if inside[1] == "'" else f"^{held(element[1], power=True)}")
        case "msubsup" if inside[2] == "'":
            return f"{inside[0]}'_{held(element[1])}"
        case "msubsup":
            return f"{inside[0]}_{held(element[1])}^{held(element[2], power=True)}"
        case _:
            return "".join(inside)


def held(element: Element, *, power: bool = False) -> str:
    text = spelt(element)
    alone = re.fullmatch(r"[A-Za-z0-9]+", text) and "_" not in text
    single = power and (element.tag != "mrow" or (len(element) == 2 and text.startswith("-") and element[1].tag != "mrow"))
    return text if alone or single else f"({text})"


def bare(text: str) -> str:
    return re.sub(r"\s+", "", text).replace("{", "(").replace("}", ")")


@pytest.mark.parametrize("equation", [e for e, where in EQUATIONS.items() if where not in PLAIN], ids=EQUATIONS.get)
def test_an_equation_says_as_mathml_what_it_said_as_text(equation: str) -> None:
    """Every derivation of the library is read, and what stands in the MathML, spelt out again, is the same equation."""
    found = list(parts(equation))
    assert any(isinstance(part, Element) for part in found)
    assert bare("".join(part if isinstance(part, str) else spelt(part) for part in found)) == bare(equation)


def test_words_keep_their_spaces() -> None:
    """Between a formula and the words around it stands what stood there; a product has a space, a function and its argument have none."""
    found = list(parts("dx_n = sum_a dy_a W over the o, k with s(x) t > 0, else 0"))
    assert [part for part in found if isinstance(part, str)] == [" over the ", ", ", " with ", ", else "]
    assert [part.get("alttext") for part in found if isinstance(part, Element)] == ["dx_n = sum_a dy_a W", "o", "k", "s(x) t > 0", "0"]
    assert [e.tag for e in found[6].iter("mspace")] == ["mspace"]


def test_nearly_every_derivation_is_typeset() -> None:
    """Only the derivations listed here stay plain text, and there are many others."""
    assert len(EQUATIONS) > 120
    assert {where for equation, where in EQUATIONS.items() if str(typeset(equation)).startswith("<code>")} == PLAIN


@pytest.mark.parametrize("text", [
    "x_n(", "a_t,pi_t", "J = f(x; w", "y = |x", "x_..i..", "y = x @ w", "x^", "sum_", "y_n = 1/2/3", "}", "é = 1", "y = = x", "y =", "= x",
    "(x +)", "<script>alert(1)</script>", "g'^2 = 1",
])
def test_what_is_not_understood_stays_plain_text(text: str) -> None:
    """A notation that is not ours is shown as it stands, escaped, and never as a formula that may be another one."""
    with pytest.raises(UnreadableError):
        list(parts(text))
    assert str(typeset(text)) == f"<code>{escape(text, quote=False).replace(chr(39), '&#39;')}</code>"


def test_markup_in_words_stays_text() -> None:
    """Words between formulas are escaped, and an attribute holds no quote of theirs."""
    html = str(typeset("x_n > 0, else y"))
    assert "<script" not in html
    assert 'alttext="x_n &gt; 0"' in html


def finding(actual: np.ndarray, expected: np.ndarray, bound: np.ndarray | float, index: tuple[int, ...], **facts: Any) -> Finding:
    """Return a finding with these numbers."""
    arithmetic = Arithmetic(precision_named("float64"))
    ball = Rounded(expected, np.broadcast_to(np.asarray(bound, dtype=np.float64), expected.shape), arithmetic)
    certificate = Certificate("layers.0", Linear(2), "dweight", "outside", actual.size, outside=1, index=index, actual=actual, ball=ball)
    judgement = Judgement(certificate, None, "wrong", lambda: Diagnosis("unknown", "no known mistake"))
    at = Finding.of(judgement, subject="torch", precision="float64", case=None)
    return replace(at, **facts)


def labels(found: Finding) -> dict[str, int]:
    heat = heat_map(found)
    assert heat is not None
    return {level.label: level.count for level in heat.levels}


def test_a_heat_map_counts_entries_by_excess() -> None:
    """Each entry is in the class of its difference over its bound; NaN and what nobody can know have classes of their own."""
    expected = np.zeros((2, 5))
    actual = np.array([[0.0, 0.3, 0.9, 5.0, 2e3], [1e6, 1e12, math.nan, 0.05, 1.0]])
    assert labels(finding(actual, expected, 1.0, (1, 1))) == dict.fromkeys(LEVELS[1:8], 1) | {"up to 0.1": 2, "0.5 to 1": 2}
    unknown = np.where(np.arange(10).reshape(2, 5) == 0, math.inf, 1.0)
    assert labels(finding(actual, expected, unknown, (1, 1)))["nothing claimed"] == 1


def test_one_entry_of_a_large_tensor_is_seen() -> None:
    """A map reduced to blocks shows the worst of each, so that one entry among 40,000 stays, in the cell that is marked as the worst."""
    expected = np.zeros((200, 200))
    actual = expected.copy()
    actual[123, 77] = 1.0
    heat = heat_map(finding(actual, expected, 1e-3, (123, 77)))
    assert heat is not None
    assert 'class="e4"' in heat.svg
    row, column = 123 * 32 // 200, 77 * 64 // 200
    assert f"M{column} {row}h1v1h-1z" in heat.svg
    assert re.search(rf'<rect x="{column}" y="{row}"[^>]*class="worst"', heat.svg)
    assert heat.blocks == "the worst of a block of up to 7 × 4 entries"
    assert labels(finding(actual, expected, 1e-3, (123, 77))) == {"up to 0.1": 39_999, "10 to 1e4": 1}


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((4,), "one", "axis 0 (size 4)"),
        ((3, 4), "axis 0 (size 3)", "axis 1 (size 4)"),
        ((2, 3, 4), "axes 0, 1 (size 2 × 3)", "axis 2 (size 4)"),
        ((2, 3, 4, 5), "axes 0, 1 (size 2 × 3)", "axes 2, 3 (size 4 × 5)"),
        ((2, 1, 2, 3, 2), "axes 0, 1 (size 2 × 1)", "axes 2, 3, 4 (size 2 × 3 × 2)"),
    ],
)
def test_a_tensor_of_any_rank_is_laid_out_in_two(shape: tuple[int, ...], rows: str, columns: str) -> None:
    """The page says which axes run down and which across."""
    actual = np.zeros(shape)
    worst = tuple(n - 1 for n in shape)
    actual[worst] = 1.0
    heat = heat_map(finding(actual, np.zeros(shape), 0.1, worst))
    assert heat is not None
    assert (heat.rows, heat.columns) == (rows, columns)
    found = window(finding(actual, np.zeros(shape), 0.1, worst))
    assert found is not None
    (place, cells), column = found.rows[-1], found.columns[-1]
    assert f"{place}{column}" == "".join(f"[{i}]" for i in worst)
    assert cells[-1] == ("1", "0", True, True)


def test_without_numbers_there_is_no_map() -> None:
    """A finding read back from disk, an error, and a single number have no heat map; a single number still has its window."""
    one = finding(np.array(2.0), np.array(1.0), 0.1, ())
    assert heat_map(one) is None
    found = window(one)
    assert found is not None
    assert found.rows == (("", (("2", "1", True, True),)),)
    assert heat_map(replace(one, certificate=None)) is None
    assert window(replace(one, certificate=None)) is None
    assert one.certificate is not None
    assert heat_map(replace(one, certificate=replace(one.certificate, actual=np.zeros(3)))) is None


def test_numbers_have_the_digits_that_tell_them_apart() -> None:
    """Two numbers that differ in the ninth digit are shown to the tenth."""
    expected = np.array([1.0, 2.0])
    found = window(finding(expected * (1 + 3e-9), expected, 1e-12, (0,)))
    assert found is not None
    assert found.rows[0][1][0][:2] == ("1.000000003", "1")


NETWORK = Network((4,), (
    Linear(4),
    Residual(Sequential((ReLU(), Linear(4)))),
    Parallel((Tanh(), Shared(Linear(4), "w"))), Concatenate(),
    Linear(4), Shared(Linear(4), "w"),
), MSELoss())


def flat(boxes: tuple[Box, ...]) -> Iterator[Box]:
    for box in boxes:
        yield box
        yield from flat(box.inside)


@pytest.mark.parametrize(
    ("path", "labels", "notes"),
    [
        ("layers.0", ["Linear"], ["layers.0"]),
        ("layers.1.layer.0", ["ReLU"], ["layers.1.layer.0"]),
        ("layers.1.add", ["Add"], ["layers.1.add"]),
        ("layers.2.0", ["Tanh"], ["layers.2.0"]),
        ("layers.2.1", ["Linear"], ["layers.2.1"]),
        ("head", ["MSELoss"], ["head"]),
        ("layers.0.fork", ["Linear"], ["layers.0: its fork"]),
        ("layers.1.add.fork", ["Add"], ["layers.1.add: its fork"]),
        ("@w.weight.fork", ["Shared", "Shared"], ["shares the parameters w: their fork"] * 2),
        ("elsewhere", [], []),
    ],
)
def test_the_guilty_layer_is_marked_wherever_it_stands(path: str, labels: list[str], notes: list[str]) -> None:
    """Layers, the parts of containers, heads, forks of values and of shared parameters: each is marked, and nothing else."""
    assert path in {*(step.path for step in NETWORK.steps), "head", "elsewhere"}
    marked = finding(np.zeros(2), np.ones(2), 0.1, (0,), path=path, case=Case(NETWORK, 0, "normal", 2))
    guilty = [box for box in flat(drawing(marked)) if box.guilty]
    assert [box.label for box in guilty] == labels
    assert [box.note for box in guilty] == notes


def test_a_network_is_drawn_with_its_shapes() -> None:
    """The boxes follow the network, each with the shape that it hands on, batch first, and options that are not the usual ones."""
    boxes = drawing(finding(np.zeros(2), np.ones(2), 0.1, (0,), path="head", case=Case(NETWORK, 0, "normal", 2)))
    assert [box.kind for box in boxes] == ["input", "layer", "residual", "branches", "layer", "layer", "chain", "layer"]
    assert boxes[0].shape == "2 × 4"
    assert boxes[4].shape == "2 × 8"
    assert boxes[5].options == "out_features=4"


def test_a_candidate_is_drawn_with_its_inputs() -> None:
    """A check of one layer has no network: the layer stands behind its inputs, and is the guilty one, with all that it holds."""
    one = drawing(finding(np.zeros(2), np.ones(2), 0.1, (0,), path="candidate", case=Probe(Linear(2), ((3,),), 5)))
    assert [(box.label, box.shape, box.guilty) for box in one] == [("input x", "5 × 3", False), ("Linear", "", True)]
    held = drawing(finding(np.zeros(2), np.ones(2), 0.1, (0,), path="candidate", case=Probe(Residual(Linear(3)), ((3,),), 5)))
    assert [box.label for box in flat(held)] == ["input x", "the candidate", "Residual", "Linear", "Add"]
    assert drawing(finding(np.zeros(2), np.ones(2), 0.1, (0,))) == ()


def test_squares_say_how_close_a_tensor_came() -> None:
    """A square has the class of its margin, a mark where entries were outside or of another convention, and leads to its finding."""
    counts = {"dweight": Tally(10, 0, 0, 2, 0.2), "output": Tally(10, margin=0.3), "dx": Tally(10, 3, margin=0.9999999),
              "dbias": Tally(10, 0, 10)}
    tallies = {("torch", "float64", "Linear", tensor): tally for tensor, tally in counts.items()}
    found = matrix(Report((finding(np.zeros(2), np.ones(2), 0.1, (0,)),), tallies=tallies))
    assert found.columns == (("torch", "float64"),)
    ((layer, (squares,)),) = found.rows
    assert layer == "Linear"
    assert [(s.style, s.mark) for s in squares] == [("m2", ""), ("m4", "~"), ("nothing", "?"), ("outside", "×")]
    assert [s.sentence for s in squares] == [
        "output: margin 0.300 over 10 entries", "dx: margin 0.999 over 10 entries, 3 of them by another convention",
        "dbias: nothing could be said of 10 entries", "dweight: 2 of 10 entries outside"]
    assert [s.link for s in squares] == ["", "", "", "#layer=Linear&tensor=dweight&adapter=torch"]
    assert below(math.inf) == "inf"
