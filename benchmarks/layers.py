"""Write docs/layers.md: every layer and head with derivation, kinks, how exact it is, what it is lowered to, and where it was checked.

Nothing of it is typed: derivations and kinks are the docstrings, ulps come from `backproof.prove`, operators from the source of the
lowerings, and the last two columns from running these.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import jax
from backproof.adapters import jax as jax_adapter
from backproof.adapters import torch as torch_adapter
from backproof.judge.classify import LostDigits, classify
from backproof.proof.proving import DERIVATIVES, PROPERTIES, Proof, prove
from backproof.proof.setting import Setting
from backproof.reference import library
from backproof.reference.graph import Container
from backproof.reference.head import OUTPUTS, Head, pairs
from backproof.reference.layer import REGISTRY, Layer
from backproof.reference.losses import FUSED, LOSSES
from backproof.reference.rounding import PRECISIONS
from backproof.report.environment import framework_version
from document import note, table
from operators import operators
from single import FRAMEWORKS, Headed, certified, held, trace_of

__all__ = ["COMMAND", "TARGET", "cell", "derivation", "entries", "kinks", "settings", "signature", "versions"]

COMMAND = "python benchmarks/layers.py"
TARGET = Path(__file__).parent.parent / "docs" / "layers.md"
CHECKED = ("float64", "float32", "bfloat16", "float16")
LETTERS = dict(zip((*DERIVATIVES, *PROPERTIES), "CRADLS", strict=True))

W = (0.5, 2.0, 0.25)
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "HuberLoss": ({"delta": 0.25},), "SmoothL1Loss": ({"beta": 0.25}, {"beta": 0.0}), "HingeLoss": ({"margin": 0.25},),
    "BCEWithLogitsLoss": ({"pos_weight": W},), "KLDivLoss": ({"log_target": True},), "NLLLoss": ({"weight": W, "ignore_index": 1},),
    "CrossEntropyLoss": ({"weight": W, "ignore_index": 1}, {"label_smoothing": 0.25}), "CosineEmbeddingLoss": ({"margin": 0.25},),
    "CTCLoss": ({"blank": 2}, {"zero_infinity": True}),
}
"""What heads are proved with beside their defaults."""
SHAPES = {"CTCLoss": (5, 3), "CosineEmbeddingLoss": (2, 3)}


def entries() -> dict[str, list[type]]:
    """Return every layer and head by family, the last word of its module's name, sorted by name."""
    library.load_all()
    found: dict[str, list[type]] = {}
    for name in sorted(REGISTRY):
        module = REGISTRY[name].__module__.removeprefix("backproof.reference.")
        if "." not in module:
            family = module.rpartition("_")[2]
            found.setdefault(family if issubclass(REGISTRY[name], Layer) else "heads", []).append(REGISTRY[name])
    return dict(sorted(found.items(), key=lambda item: (item[0] == "heads", item[0])))


def settings(cls: Any) -> tuple[Setting, ...]:
    """Return what a class is proved on: a layer's own examples, a head unreduced with each of its options."""
    if issubclass(cls, Layer):
        return tuple(Setting(layer, tuple(shapes)) for layer, *shapes in cls.examples())
    name = cls.__name__
    options = ({"output": output, "loss": loss} for output, loss in pairs()) if cls is Head else ({}, *OPTIONS.get(name, ()))
    return tuple(Setting(Headed(cls(reduction="none", **given)), (SHAPES.get(name, (3,)),)) for given in options)


def signature(cls: Any) -> str:
    """Return a class as it is called, its options with their defaults."""
    shown = [f.name if f.default is MISSING else f"{f.name}={f.default!r}" for f in fields(cls) if f.init and f.repr]
    return f"{cls.__name__}({', '.join(shown)})"


def _docs(cls: Any) -> list[str]:
    """Return a layer's docstring; a head's own, and those of its loss and its output."""
    own = inspect.cleandoc(cls.__doc__ or "")
    if issubclass(cls, Layer):
        return [own]
    if cls is Head:
        fused = {f"{output} with {loss}": rule for (output, loss), rule in FUSED.items()}
        return [own, *(f"{name}: {inspect.cleandoc(rule.__doc__ or '')}" for name, rule in {**OUTPUTS, **LOSSES, **fused}.items())]
    rules = settings(cls)[0].layer.head.derivation()  # type: ignore[attr-defined]
    return [own, textwrap.dedent(f"    {rules}").strip()]


def derivation(cls: Any) -> str:
    """Return formula and chain rule as the docstring has them."""
    if not issubclass(cls, Layer):
        return "\n\n".join(_docs(cls))
    found = re.search(r"^Formula.*?(?=^Shapes)", _docs(cls)[0], re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"{cls.__name__}: no derivation: expected sections Formula, Chain rule and Shapes in its docstring")
    return found[0].rstrip()


def kinks(cls: Any) -> str:
    """Return what the docstring says of kinks, as one line."""
    section = re.compile(r"^Kinks\s+(.*?)(?=^\S|\Z)", re.DOTALL | re.MULTILINE)
    found = [" ".join(match.split()) for doc in _docs(cls) for match in section.findall(doc)]
    if cls is Head:
        found = ["those of its output and its loss"]
    elif not issubclass(cls, Layer):
        sentences = [" ".join(text.split()) for doc in _docs(cls)[1:] for text in re.split(r"\.\s+|\n\n|; ", doc)]
        found += [text for text in dict.fromkeys(sentences) if "subgradient" in text or "kink" in text]
    return " ".join(text if text.endswith(".") else f"{text}." for text in found) or "none."


def cell(text: str) -> str:
    """Return text as it stands in a table."""
    return text.replace("|", "\\|")


# What is measured.


def _proved_by(proofs: Sequence[Proof]) -> str:
    """Return the letters of the methods that passed, in brackets where only for some of the settings."""
    letters = []
    for name, letter in LETTERS.items():
        outcomes = {proof.methods[name] for proof in proofs}
        if "failed" in outcomes:
            # on the same numbers A holds the rule within its bound: what differs is the other method's own rounding
            letters.append(f"{letter}\\*" if name != "arbitrary precision" and _outdone(proofs, name) else f"**{name} failed**")
        elif "passed" in outcomes:
            letters.append(letter if outcomes == {"passed"} else f"({letter})")
    return " ".join(letters)


def _outdone(proofs: Sequence[Proof], name: str) -> bool:
    """Say whether arbitrary precision sides with the rule wherever another method differs."""
    return all(proof.methods["arbitrary precision"] == "passed" for proof in proofs if proof.methods[name] == "failed")


def _exactness(proofs: Sequence[Proof]) -> list[str]:
    """Return the largest ulps of outputs and of gradients, with the tensor, and the largest share of the bound."""
    cells = []
    for outputs in (True, False):
        found = [(ulps, name) for proof in proofs for name, ulps in proof.ulps.items() if (name in proof.layer.output_names) is outputs]
        worst, tensor = max(found, default=(0.0, ""))
        cells.append(f"{worst:.2g}" + (f" ({tensor})" if worst and tensor not in {"output", "dx", "dz"} else ""))
    return [*cells, f"{max((share for proof in proofs for share in proof.shares.values()), default=0.0):.2g}"]


def _checked(framework: str, chosen: Sequence[Setting]) -> str:
    """Return in which precisions a layer's lowering agrees with its rule on a framework, and what else there was."""
    agrees, remarks, margin = [], [], 0.0
    for precision in CHECKED:
        said: dict[str, None] = {}
        entries_, open_ = 0, 0
        for setting in chosen:
            found = certified(framework, setting, setting.draw(), precision)
            if isinstance(found, str):
                said[f"not computed: {found[:100]}"] = None
                continue
            certificates, met = found
            entries_ += sum(c.compared for c in certificates)
            open_ += sum(c.inconclusive for c in certificates)
            margin = max(margin, *(c.margin for c in certificates))
            said |= dict.fromkeys(f"known, `{identity}`" for identity in met)
            said |= dict.fromkeys("another subgradient" for c in certificates if c.verdict == "convention")
            said |= dict.fromkeys(_failure(framework, setting, precision, c) for c in certificates if c.failed)
        if open_:
            said[f"{100 * open_ / entries_:.2g} % inconclusive"] = None
        if not any(text.startswith(("not", "known", "**")) for text in said):
            agrees.append(precision)
        remarks += [f"{precision}: {', '.join(said)}"] if said else []
    return "; ".join([f"{', '.join(agrees) if len(agrees) < len(CHECKED) else 'all four'} ({margin:.2g})", *remarks])


def _failure(framework: str, setting: Setting, precision: str, certificate: Any) -> str:
    if certificate.verdict != "outside":
        return f"**{certificate.verdict}** in {certificate.tensor}"
    at = held(setting.draw(), precision)
    step = trace_of(setting, at, FRAMEWORKS[framework](setting, at))
    verdict = classify(LostDigits.of(step, certificate, PRECISIONS[precision]), None, PRECISIONS[precision], PRECISIONS[precision])
    return f"**{verdict}** in {certificate.tensor}, {certificate.excess:.3g} of the bound"


def _lowerings(cls: Any, chosen: Sequence[Setting]) -> list[str]:
    """Return for torch and jax what a class is lowered to."""
    if issubclass(cls, Container):
        return ["its layers'"] * 2
    layers = [getattr(setting.layer, "head", setting.layer) for setting in chosen]
    found = [(adapter.LOWERINGS | adapter.HEADS)[cls] for adapter in (torch_adapter, jax_adapter)]
    return [", ".join(f"`{name}`" for name in operators(lowering, layers)) for lowering in found]


def _title(family: str) -> str:
    return f"## {family.capitalize()}"


def _family(family: str, classes: Sequence[type]) -> Iterator[str]:
    """Yield a family's section: a table, then each layer's derivation."""
    rows, sections = [], []
    for cls in classes:
        note(f"{family}: {cls.__name__}")
        jax.clear_caches()  # type: ignore[no-untyped-call]
        chosen = settings(cls)
        proofs = [prove(setting.layer, *setting.shapes) for setting in chosen]
        checked = ["its layers'"] * 2 if issubclass(cls, Container) else [_checked("torch", chosen), _checked("jax", chosen[:1])]
        name = f"[{cls.__name__}](#{cls.__name__.lower()})"
        rows.append([name, cell(kinks(cls)), _proved_by(proofs), *_exactness(proofs), *checked])
        torch_names, jax_names = _lowerings(cls, chosen)
        sections += [f"### {cls.__name__}", f"`{signature(cls)}`", f"```text\n{derivation(cls)}\n```",
                     f"torch: {torch_names}; jax: {jax_names}. Proved on {len(chosen)} setting{'s' * (len(chosen) > 1)}."]
        sections += [f"- \\*{proof.layer}: {sentence}" for proof in proofs for sentence in proof.sentences]
    yield _title(family)
    yield table(("layer", "kinks", "proved by", "output: ulps", "gradients: ulps", "of the bound", "torch", "jax"), rows).rstrip()
    yield from sections


def versions() -> str:
    """Return one line that says what was measured."""
    return ", ".join(f"{name} {framework_version(name)}" for name in ("torch", "jax", "numpy", "scipy", "python-flint")) + ", on the CPU"


HEADER = f"""\
# Every layer and head

Generated by `{COMMAND}`; do not edit. Measured on {{versions}}.

- **kinks**: where the derivative is a set, and which of it is the reference's own choice. What the frameworks choose is in
  [conventions.md](conventions.md).
- **proved by**: the methods of `backproof.prove` that passed on every one of the settings named at the layer (in brackets: on those that
  the method applies to). {', '.join(f'{letter} {name}' for name, letter in LETTERS.items())}. R applies where the rule is rational.
  With \\* the method differs, as its line below the layer says, while A, on the same numbers, holds the rule within its bound: the method
  has fewer digits there than the rule, as a complex step has where a gradient cancels.
- **ulps**: the largest difference of the rule in float64 from the rule at 700 bits, on normal inputs and on inputs 12 times as large, in
  units in the last place of the tensor's largest entry. The gradients at 700 bits are those that A proves. Where a whole gradient cancels
  (that of a saturated softmax, or of a normalisation of one or two numbers) rounding is large beside what is left, and so are the ulps.
- **of the bound**: the largest such difference in units of twice the rounding bound; below 1 rounding explains it.
- **torch**, **jax**: the precisions in which the lowering, run eagerly on normal inputs, lies within the rounding bound of the rule in
  every output and gradient, and the largest |difference| / bound of entries known to half their size. torch on every setting, jax on
  the first. An entry is inconclusive where its bound is as large as the largest number of its tensor. A known discrepancy is explained in
  `harness/judge/known/`.

Heads are proved and run without reduction, each entry of the loss with its own upstream gradient; `Head` in every pair of output and loss.
More on the activations, over [-1000, 1000], is in [proof.md](proof.md), on heads in [proof-heads.md](proof-heads.md).
"""


def main(families: Sequence[str]) -> None:
    """Write the page, or of one that was measured on the same versions the sections of some families."""
    header, old = HEADER.format(versions=versions()).rstrip(), TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
    if families and not old.startswith(header):
        raise SystemExit(f"the page was measured on other versions: got families {', '.join(families)}. Do: {COMMAND}")
    kept = {text.split("\n", 1)[0]: text for text in re.split(r"(?m)^(?=## )", old)}
    parts = [header]
    for family, classes in entries().items():
        again = not families or family in families or _title(family) not in kept
        parts.append("\n\n".join(_family(family, classes)) if again else kept[_title(family)].rstrip())
    TARGET.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main(sys.argv[1:])
