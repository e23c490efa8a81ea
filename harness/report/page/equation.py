"""Equations as MathML: the index notation of the derivations, read token by token and set as it stands.

Nothing is reordered or simplified. What is not understood stays plain text, since a wrong formula is worse than an ugly one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from xml.etree.ElementTree import Element, SubElement, tostring

from backproof.reference.layer import REGISTRY
from markupsafe import Markup, escape

__all__ = ["UnreadableError", "parts", "typeset"]

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "eps": "ε", "lambda": "λ", "mu": "μ", "phi": "φ", "Phi": "Φ",
         "pi": "π", "sigma": "σ", "theta": "θ"}
FUNCTIONS = frozenset({"ceil", "cos", "exp", "floor", "log", "logsumexp", "max", "min", "sech", "sign", "sin", "softmax", "softplus",
                       "sqrt", "tanh"})
BIG = {"sum": "∑", "prod": "∏"}
OPERATORS = {"<=": "≤", ">=": "≥", "!=": "≠", "+-": "±", "=": "=", "<": "<", ">": ">", "+": "+", "-": "−", "*": "·", "/": "/",
             ":": ":", ",": ",", ";": ";", "...": "…"}
CLOSING = {"(": ")", "[": "]", "{": "}"}
PROSE = re.compile(r"[A-Za-z]{2,}(?:-[A-Za-z]{2,})+|[A-Za-z]{2,}")
TOKEN = re.compile(r"(?P<prose>[A-Za-z]{2,}(?:-[A-Za-z]{2,})+)|(?P<name>[A-Za-z]+)|(?P<number>\d+(?:\.\d+)?)"
                   r"|(?P<operator>\.\.\.|<=|>=|!=|\+-|[=<>+\-*/:,;])|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<bar>\|)")
PARAMETER = re.compile(r"d?(?:(?:in|out)_proj_(?:weight|bias)|(?:weight|bias)_[hi]h_l\d+(?:_reverse)?)(?![A-Za-z0-9])")
SUBSCRIPT = re.compile(r"_([A-Za-z]{1,3}\d?|\d+)(?![A-Za-z0-9_.])")
GRADIENT = re.compile(r"d[A-Za-z]")
BINARY = frozenset(("<=", ">=", "!=", "=", "<", ">", "+", "*", "/", ":"))
TIMES, APPLIED, PRIME = "\u2062", "\u2061", "\u2032"


class UnreadableError(ValueError):
    """A notation that is not ours."""


@lru_cache(maxsize=1024)
def typeset(text: str) -> Markup:
    """Return an equation as MathML between words as text; as plain text in `<code>` where it is not understood."""
    try:
        pieces = list(parts(text))
    except UnreadableError:
        return Markup("<code>{}</code>").format(text)  # format escapes what it is given
    # an element's text is escaped by the serialiser, words by `escape`
    return Markup("").join(escape(part) if isinstance(part, str) else Markup(tostring(part, encoding="unicode")) for part in pieces)  # noqa: S704


def parts(text: str) -> Iterator[Element | str]:
    """Yield an equation's formulas, as `math` elements, and the words and commas between them; raise UnreadableError."""
    reader = _Reader(text)
    while reader.at < len(text):
        if words := reader.words():
            yield words
            continue
        start, row = reader.at, Element("mrow")
        reader.row(row, "")
        math = Element("math", {"displaystyle": "true", "alttext": text[start : reader.at]})
        math.append(row)
        yield math


@dataclass
class _Reader:
    """A place in a text, and the rules that read on from it."""

    text: str
    at: int = 0

    def words(self) -> str:
        """Read what stands between formulas: spaces, words that are no names, commas and full stops."""
        start = self.at
        while self.at < len(self.text):
            match = re.compile(r"\s+|[,;](?=\s)|\.(?=\s|$)").match(self.text, self.at) or self._prose()
            if not match:
                break
            self.at = match.end()
        return self.text[start : self.at]

    def _prose(self) -> re.Match[str] | None:
        """Return the word at this place unless it belongs to a formula: a known name, or one with an index or an argument."""
        match = PROSE.match(self.text, self.at)
        if match is None or self._compound():
            return None
        follows = self.text[match.end() : match.end() + 1]
        word = match.group()
        if "-" in word:
            return match
        if word in BIG:
            return None if follows == "_" else match
        known = word in GREEK or word in FUNCTIONS or GRADIENT.fullmatch(word)
        return None if known or (follows and follows in "_^'(") else match

    def _compound(self) -> re.Match[str] | None:
        """Return the name with underscores at this place: a parameter's, or an option's of some layer."""
        match = PARAMETER.match(self.text, self.at)
        return match or re.compile("|".join((*map(_whole, _options()), "(?!)"))).match(self.text, self.at)

    def row(self, row: Element, closing: str) -> None:
        """Read operands and operators up to a closing bracket, or at the outermost level up to the next word or comma."""
        before, bars = "operator", 0
        while self.at < len(self.text):
            start = self.at
            spaced = self._space()
            match = TOKEN.match(self.text, self.at)
            if self.at == len(self.text) or (self._ends() if not closing else self.text[self.at] == closing):
                self.at = self.at if closing else start  # the space before a word is the word's
                break
            if match is None:
                raise UnreadableError(f"no notation of ours: {self.text[self.at :]!r}")
            if match.lastgroup == "operator":
                before = self._operator(row, match, before, closing)
            elif closing and (word := self._prose()):
                self.at = word.end()
                SubElement(row, "mtext").text = f"\u00a0{word.group()}\u00a0"
                before = "operator"
            else:
                closes = match.lastgroup == "bar" and bars % 2 == 1
                bars += match.lastgroup == "bar"
                if before not in {"operator", "binary"} and not closes:
                    self._between(row, match.group(), before, spaced=spaced)
                before = self._bar(row, closes=closes) if match.lastgroup == "bar" else self._operand(row)
        if bars % 2 or not len(row) or (before == "binary" and (closing or self.at == len(self.text))):
            raise UnreadableError(f"no notation of ours: {self.text!r}")

    def _operator(self, row: Element, match: re.Match[str], before: str, closing: str) -> str:
        """Read an operator, where one may stand: a comma without a space between formulas belongs to no notation of ours."""
        mark = match.group()
        if (not closing and mark in {",", ";"}) or (mark in BINARY and (before == "binary" or self.at == 0)):
            raise UnreadableError(f"an operator without operands: {self.text[self.at :]!r}")
        self.at = match.end()
        unary = {"form": "prefix"} if mark in {"-", "+-"} and before in {"operator", "binary"} else {}
        SubElement(row, "mo", unary).text = OPERATORS[mark]
        return "binary" if mark in BINARY else "operator"

    def _bar(self, row: Element, *, closes: bool) -> str:
        self.at += 1
        SubElement(row, "mo", {"form": "postfix" if closes else "prefix", "stretchy": "false"}).text = "|"
        return "operand" if closes else "operator"

    def _space(self) -> bool:
        start = self.at
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.at > start

    def _ends(self) -> bool:
        """Say whether words or a comma between formulas follow."""
        rest = self.text[self.at :]
        return bool(re.match(r"[,;]\s|\.(\s|$)", rest)) or self._prose() is not None

    @staticmethod
    def _between(row: Element, following: str, before: str, *, spaced: bool) -> None:
        """Say what stands unwritten between two operands: a function applied, or a product."""
        applied = before == "function" or (following == "(" and not spaced and before == "name")
        SubElement(row, "mo").text = APPLIED if applied else TIMES
        if spaced:
            SubElement(row, "mspace", {"width": "0.22em"})

    def _operand(self, row: Element) -> str:
        """Read an operand with its indices and powers, and what it is divided by where no space stands between."""
        element, kind = self._scripted()
        if self._divides():
            self.at += 1
            fraction = Element("mfrac")
            fraction.append(element)
            below, _ = self._scripted()
            fraction.append(below)
            element, kind = fraction, "operand"
            if self.text[self.at : self.at + 1] == "/":
                raise UnreadableError(f"two fractions in one: {self.text!r}")
        row.append(element)
        return kind

    def _divides(self) -> bool:
        return bool(re.compile(r"/[A-Za-z0-9]").match(self.text, self.at)) and not self.text[self.at - 1].isspace()

    def _scripted(self, *, power: bool = True) -> tuple[Element, str]:
        """Read a name, number or bracket with prime, index and power; a power is read without one of its own."""
        base, kind = self._base()
        prime = self._take("'")
        below = self._below()
        above = None
        if power and self._take("^"):
            above = self._exponent()
        if prime:
            if above is not None:
                raise UnreadableError(f"a prime and a power: {self.text!r}")
            above = Element("mo")
            above.text = PRIME
        if kind == "big":
            if below is None or above is not None:
                raise UnreadableError(f"a sum without its index: {self.text!r}")
            return _wrap("munder", base, below), "operator"
        tag = {(True, True): "msubsup", (True, False): "msub", (False, True): "msup"}.get((below is not None, above is not None))
        return (_wrap(tag, base, *(e for e in (below, above) if e is not None)) if tag else base), kind

    def _base(self) -> tuple[Element, str]:
        if match := self._compound():
            self.at = match.end()
            return _leaf("mi", match.group()), "name"
        match = TOKEN.match(self.text, self.at)
        if match is None or match.lastgroup not in {"name", "number", "open"}:
            raise UnreadableError(f"no notation of ours: {self.text[self.at :]!r}")
        self.at, read = match.end(), match.group()
        if match.lastgroup == "name":
            return self._name(read)
        return (_leaf("mn", read) if match.lastgroup == "number" else self._bracket(read, fences=True)), "operand"

    def _name(self, name: str) -> tuple[Element, str]:
        if name in BIG:
            return _leaf("mo", BIG[name]), "big"
        if name == "sqrt" and self._take("("):
            return _wrap("msqrt", self._bracket("(", fences=False)), "operand"
        if name in FUNCTIONS:
            return _leaf("mi", name), "function"
        if GRADIENT.fullmatch(name):
            return _wrap("mrow", _leaf("mi", "d"), _leaf("mi", name[1])), "name"
        return _leaf("mi", GREEK.get(name, name)), "name"

    def _bracket(self, opening: str, *, fences: bool) -> Element:
        """Read on behind an opening bracket up to its closing one."""
        row = Element("mrow")
        if fences:
            SubElement(row, "mo", {"form": "prefix", "stretchy": "false"}).text = opening
        inside = SubElement(row, "mrow") if fences else row
        self.row(inside, CLOSING[opening])
        if not self._take(CLOSING[opening]):
            raise UnreadableError(f"a bracket that is not closed: {self.text!r}")
        if fences:
            SubElement(row, "mo", {"form": "postfix", "stretchy": "false"}).text = CLOSING[opening]
        return row

    def _below(self) -> Element | None:
        """Read an index: letters, each an index of its own, a number, or an expression in brackets."""
        if match := SUBSCRIPT.match(self.text, self.at):
            self.at = match.end()
            every = re.findall(r"\d+|[A-Za-z]", match.group(1))
            leaves = [_leaf("mn" if index.isdigit() else "mi", index) for index in ([match.group(1)] if match.group(1) in GREEK else every)]
            return leaves[0] if len(leaves) == 1 else _wrap("mrow", *leaves)
        if self._take("_"):
            return self._group()
        return None

    def _exponent(self) -> Element:
        if self.text[self.at : self.at + 1] in {"(", "{"}:
            return self._group()
        minus = self._take("-")
        element, _ = self._scripted(power=False)
        return _wrap("mrow", _leaf("mo", OPERATORS["-"], form="prefix"), element) if minus else element

    def _group(self) -> Element:
        """Read an expression in brackets that only hold it together."""
        opening = self.text[self.at : self.at + 1]
        if opening not in {"(", "{"}:
            raise UnreadableError(f"an index or power that is not understood: {self.text[self.at :]!r}")
        self.at += 1
        return self._bracket(opening, fences=False)

    def _take(self, mark: str) -> bool:
        stands = self.text.startswith(mark, self.at)
        self.at += len(mark) if stands else 0
        return stands


@lru_cache(maxsize=1)
def _options() -> tuple[str, ...]:
    """Return the names of layers' options that hold an underscore, the longest first."""
    names = {f.name for cls in REGISTRY.values() if is_dataclass(cls) for f in fields(cls) if "_" in f.name.strip("_")}
    return tuple(sorted(names, key=len, reverse=True))


def _whole(name: str) -> str:
    return rf"{re.escape(name)}(?![A-Za-z0-9])"


def _leaf(tag: str, text: str, **attributes: str) -> Element:
    element = Element(tag, attributes)
    element.text = text
    return element


def _wrap(tag: str, *children: Element) -> Element:
    element = Element(tag)
    element.extend(children)
    return element
