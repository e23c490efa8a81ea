"""What each version of jax answers where versions differ or a known discrepancy shows: `python benchmarks/versions.py` in its environment.

The answers of the installed jax go into versions.json, and the table of docs/findings.md is made from all that stand there.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from backproof.adapters.jax.versions import enable_x64
from backproof.judge.known import Known, load_known
from document import table
from jax import lax
from packaging.specifiers import SpecifierSet
from packaging.version import Version

__all__ = ["ASKED", "Question", "answer"]

HERE = Path(__file__).parent
RECORD = HERE / "versions.json"
PAGE = HERE.parent / "docs" / "findings.md"
STEPS = ("0.4.30", "0.4.35", "0.5.3", "0.6.2", "0.7.1", "0.7.2", "0.8.3", "0.9.2", "0.10.2")
ABSENT = "-"
START, END = "<!-- made by benchmarks/versions.py -->\n", "<!-- end -->\n"


@dataclass(frozen=True)
class Question:
    """One number asked of jax: what is right, by how much rounding alone may miss it, and the known discrepancies that it shows."""

    name: str
    ask: Callable[[], Any]
    truth: float
    bound: float
    known: tuple[str, ...] = ()

    def right(self, given: float | str) -> bool:
        """Say whether an answer is within the bound; what a version has no function for is not wrong."""
        return given == ABSENT or (not isinstance(given, str) and abs(given - self.truth) <= self.bound)


ASKED: list[Question] = []


def asked(name: str, truth: float, bound: float, *known: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Enrol a function that asks jax for one number; one whose name ends in float64 is asked with x64 on."""

    def enrol(ask: Callable[[], Any]) -> Callable[[], Any]:
        ASKED.append(Question(name, ask, truth, bound, known))
        return ask

    return enrol


def answer(question: Question) -> float | str:
    """Return the number that the installed jax gives, `ABSENT` where it has no such function, or the beginning of what it raises."""
    with enable_x64("float64" in question.name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return float(np.asarray(question.ask(), np.float64).ravel()[0])
        except Exception as error:  # noqa: BLE001  (a refusal is an answer)
            if isinstance(error, AttributeError) or "unexpected keyword" in str(error):
                return ABSENT
            return f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"


def slope(function: Callable[[Any], Any], at: Any, dtype: Any) -> Any:
    """Return the derivative under jit."""
    return jax.jit(jax.grad(lambda x: jnp.sum(function(x))))(jnp.asarray(at, dtype))


@asked("exact gelu(-5), float32", -1.43325786e-06, 1e-11, "jax-gelu-tail")
def _() -> Any:
    return jax.jit(lambda x: jax.nn.gelu(x, approximate=False))(jnp.float32(-5))


@asked("exact gelu'(-8.5), float64", -6.8465049387e-16, 1e-22, "jax-gelu-tail")
def _() -> Any:
    return slope(lambda x: jax.nn.gelu(x, approximate=False), -8.5, jnp.float64)


@asked("tanh gelu(-6), float64", -8.4396467008e-11, 1e-19, "jax-gelu-tanh-tail")
def _() -> Any:
    return jax.jit(lambda x: jax.nn.gelu(x, approximate=True))(jnp.float64(-6))


@asked("tanh'(30), float64", 4 * np.exp(-60.0), 1e-25, "jax-tanh-saturated-float64")
def _() -> Any:
    return slope(jnp.tanh, 30.0, jnp.float64)


@asked("elu'(-40), float64", np.exp(-40.0), 1e-32, "jax-elu-tail")
def _() -> Any:
    return slope(jax.nn.elu, -40.0, jnp.float64)


@asked("d standardize(x)_0 / dx_0 at 1e5 + (0, 1, -2), float32", 0.5154292, 0.02)
def _() -> Any:
    return slope(lambda x: jax.nn.standardize(x)[0], [1e5, 1e5 + 1, 1e5 - 2], jnp.float32)


@asked("acosh'(1 + 2^-12), float32, eagerly", 1 / np.sqrt(2.0**-11 + 2.0**-24), 2e-5)
def _() -> Any:
    return jax.grad(lax.acosh)(jnp.float32(1 + 2.0**-12))


@asked("d logaddexp2(x, y) / dx at (1e4, 1e4), float32", 0.5, 1e-6)
def _() -> Any:
    return slope(lambda x: jnp.logaddexp2(x, jnp.float32(1e4)), 1e4, jnp.float32)


@asked("d (x / max(norm x, eps))_0 / dx_0 at 0, float32", 1e12, 1e6, "jax-normalize-zero-vector")
def _() -> Any:
    return slope(lambda x: (x / jnp.maximum(jnp.linalg.norm(x), 1e-12))[0], [0.0, 0.0], jnp.float32)


@asked("d rms_norm(x)_0 / dx_0 at 1e14 (3, -1, 2, 1/2), float32", 1.9519424e-15, 1e-20, "jax-normalization-cubed-root")
def _() -> Any:
    return slope(lambda x: (x * lax.rsqrt(jnp.mean(x * x) + 1e-5))[0], [3e14, -1e14, 2e14, 5e13], jnp.float32)


# Attention.

QKV = np.random.default_rng(0).standard_normal((3, 1, 3, 1, 2))


def attention(*arrays: Any, **options: Any) -> Any:
    return jax.nn.dot_product_attention(*arrays, **options)


@asked("attention: largest error of three queries, float64", 0.0, 1e-14, "jax-attention-softmax-in-float32")
def _() -> Any:
    scores = np.einsum("btnh,bsnh->bnts", QKV[0], QKV[1]) / np.sqrt(2)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    return np.abs(np.asarray(attention(*map(jnp.asarray, QKV))) - np.einsum("bnts,bsnh->btnh", weights, QKV[2])).max()


def unseen(dtype: Any) -> Any:
    ones, values = jnp.ones((1, 1, 1, 1), dtype), jnp.asarray([3, 5], dtype).reshape(1, 2, 1, 1)
    return attention(ones, values, values, mask=jnp.zeros((1, 1, 1, 2), bool))


@asked("attention: a query that sees no key, values (3, 5), float32", 0.0, 0.0, "jax-attention-wholly-masked-row")
def _() -> Any:
    return unseen(jnp.float32)


@asked("attention: a query that sees no key, values (3, 5), float64", 0.0, 0.0, "jax-attention-wholly-masked-row-float64")
def _() -> Any:
    return unseen(jnp.float64)


@asked("attention: local_window_size=(0, 0), values (1, 2, 3), first output, float32", 1.0, 1e-6)
def _() -> Any:
    values = jnp.asarray([1, 2, 3], jnp.float32).reshape(1, 3, 1, 1) * jnp.ones((1, 3, 1, 2), jnp.float32)
    queries = jnp.asarray(QKV[0], jnp.float32)
    return attention(queries, queries, values, local_window_size=(0, 0))


@asked("attention: query_seq_lengths=[1], output of the second query, float32", 0.0, 0.0)
def _() -> Any:
    queries = jnp.asarray(QKV[0], jnp.float32)
    return attention(queries, queries, queries, query_seq_lengths=jnp.array([1]))[0, 1]


@asked("attention under jit, float16: d sum(output) / dvalue of equal queries", 1.0, 2.0**-9, "jax-attention-float16-under-jit")
def _() -> Any:
    ones = jnp.ones((1, 3, 1, 2), jnp.float16)
    return slope(lambda v: attention(ones, ones, v), ones, jnp.float16)


@asked("attention under jit, bfloat16, one query, one key, size 1", 1.0, 0.0, "jax-attention-bfloat16-single-product",
       "jax-attention-bfloat16-single-product-unimplemented")
def _() -> Any:
    return slope(lambda v: attention(v, v, v), np.ones((1, 1, 1, 1)), jnp.bfloat16)


# Half precision.


@asked("sigmoid'(6), bfloat16", 0.00246650929136, 2.0**-17)
def _() -> Any:
    return slope(jax.nn.sigmoid, 6.0, jnp.bfloat16)


@asked("tanh'(5), bfloat16", 0.000181583230944, 2.0**-20)
def _() -> Any:
    return slope(jnp.tanh, 5.0, jnp.bfloat16)


@asked("sigmoid(-11.2), float16", 1.363135e-05, 2.0**-25, "jax-sigmoid-float16-overflow")
def _() -> Any:
    return jax.jit(jax.nn.sigmoid)(jnp.float16(-11.2))


@asked("softsign'(-979), float16", 1 / 980.0**2, 2.0**-25, "jax-quotient-rule-float16")
def _() -> Any:
    return slope(jax.nn.soft_sign, -979.0, jnp.float16)


def broadcast(largest: float, dtype: Any) -> Any:
    """Return the gradient of a bias that was added to five rows."""
    dy = jnp.asarray([[largest], [1], [1], [1], [1]], dtype)
    return jax.jit(lambda b, dy: jax.vjp(lambda b: jnp.zeros_like(dy) + b, b)[1](dy)[0])(jnp.zeros(1, dtype), dy)


@asked("gradient of a broadcast, 256 + 1 + 1 + 1 + 1, bfloat16", 260.0, 0.0, "jax-broadcast-gradient-summed-in-bfloat16")
def _() -> Any:
    return broadcast(256, jnp.bfloat16)


@asked("gradient of a broadcast, 2048 + 1 + 1 + 1 + 1, float16", 2052.0, 0.0, "jax-broadcast-gradient-summed-in-float16")
def _() -> Any:
    return broadcast(2048, jnp.float16)


def log_softmax(largest: float, dtype: Any) -> Any:
    """Return the second gradient of eight equal logits, dy_2 - sum dy / 8, whose upstream gradients are a number and seven ones."""
    dy = jnp.asarray([largest] + 7 * [1.0], dtype)
    return jax.jit(lambda x, dy: jax.vjp(jax.nn.log_softmax, x)[1](dy)[0])(jnp.zeros(8, dtype), dy)[1]


@asked("gradient of log_softmax, 1 - (256 + 7) / 8, bfloat16", -31.875, 0.5, "jax-log-softmax-gradient-summed-in-bfloat16")
def _() -> Any:
    return log_softmax(256, jnp.bfloat16)


@asked("gradient of log_softmax, 1 - (2048 + 7) / 8, float16", -255.875, 0.5, "jax-log-softmax-gradient-summed-in-float16")
def _() -> Any:
    return log_softmax(2048, jnp.float16)


@asked("reduce_window with add, 1 + 2^-9 - 1, bfloat16", 2.0**-9, 0.0, "jax-avg-pool-bfloat16-partial-sums")
def _() -> Any:
    return jax.jit(lambda x: lax.reduce_window(x, 0.0, lax.add, (3,), (3,), "VALID"))(jnp.asarray([1, 2.0**-9, -1], jnp.bfloat16))


@asked("reduce_window with add, 2048 + 1 + 1, float16", 2050.0, 0.0, "jax-avg-pool-float16-partial-sums")
def _() -> Any:
    return jax.jit(lambda x: lax.reduce_window(x, 0.0, lax.add, (3,), (3,), "VALID"))(jnp.asarray([2048, 1, 1], jnp.float16))


CHANNELS = np.r_[2048, np.ones(15)]


@asked("convolution of 16 channels, 2048 + 15 times 1, float16", 2064.0, 0.0, "jax-convolution-float16-sums")
def _() -> Any:
    x, w = jnp.asarray(CHANNELS.reshape(1, 16, 1), jnp.float16), jnp.ones((1, 16, 1), jnp.float16)
    return jax.jit(lambda x, w: lax.conv_general_dilated(x, w, (1,), [(0, 0)]))(x, w)


@asked("convolution of width 16, 2048 + 15 times 1, float16", 2064.0, 0.0, "jax-convolution-float16-sums")
def _() -> Any:
    x, w = jnp.asarray(CHANNELS.reshape(1, 1, 16), jnp.float16), jnp.ones((1, 1, 16), jnp.float16)
    return jax.jit(lambda x, w: lax.conv_general_dilated(x, w, (1,), [(0, 0)]))(x, w)


@asked("dx of a convolution to 16 channels, 2048 + 15 times 1, float16", 2064.0, 0.0, "jax-convolution-float16-sums")
def _() -> Any:
    w, dy = jnp.ones((16, 1, 1), jnp.float16), jnp.asarray(CHANNELS.reshape(1, 16, 1), jnp.float16)
    back = jax.jit(lambda x, w, dy: jax.vjp(lambda x: lax.conv_general_dilated(x, w, (1,), [(0, 0)]), x)[1](dy)[0])
    return back(jnp.zeros((1, 1, 1), jnp.float16), w, dy)


@asked("a dense layer's product, 2048 + 15 times 1, float16", 2064.0, 0.0)
def _() -> Any:
    return jax.jit(jnp.dot)(jnp.asarray(np.tile(CHANNELS, (2, 1)), jnp.float16), jnp.ones((16, 2), jnp.float16))


# Kinks.


@asked("leaky_relu'(0)", 1.0, 0.0)
def _() -> Any:
    return slope(jax.nn.leaky_relu, 0.0, jnp.float32)


@asked("hard_tanh'(1)", 1.0, 0.0)
def _() -> Any:
    return slope(jax.nn.hard_tanh, 1.0, jnp.float32)


@asked("clip'(1) at a bound of 1", 0.5, 0.0)
def _() -> Any:
    return slope(lambda x: jnp.clip(x, -1, 1), 1.0, jnp.float32)


@asked("abs'(0)", 1.0, 0.0)
def _() -> Any:
    return slope(jnp.abs, 0.0, jnp.float32)


@asked("max of (1, 1): share of the first", 0.5, 0.0)
def _() -> Any:
    return slope(jnp.max, [1.0, 1.0], jnp.float32)


@asked("max pool of (1, 1): share of the first", 1.0, 0.0)
def _() -> Any:
    return slope(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (2,), "VALID"), [1.0, 1.0], jnp.float32)


Answers = dict[str, dict[str, float | str]]


def spans(question: Question, record: Answers) -> Iterator[tuple[str, float | str]]:
    """Yield the first version of each run of versions that give the same answer, and the answer."""
    last: float | str | None = None
    for version, answers in record.items():
        given = answers[question.name]
        if repr(given) != repr(last):  # NaN is no other answer than NaN
            yield version, given
        last = given


def cell(question: Question, given: float | str) -> str:
    """Return an answer as the table shows it: bold where it is wrong."""
    text = "refused" if isinstance(given, str) and given != ABSENT else given if isinstance(given, str) else f"{given:.7g}"
    return text if question.right(given) else f"**{text}**"


def shows(entry: Known, question: Question, given: float | str) -> bool:
    """Say whether an answer is the discrepancy of an entry: what it raises, NaN where it explains nothing else, or a wrong number."""
    if entry.raises or isinstance(given, str):
        return isinstance(given, str) and bool(entry.raises) and entry.raises in given
    return not np.isfinite(given) if entry.verdicts == ("nonfinite",) else not question.right(given)


def disagreements(record: Answers) -> list[str]:
    """Return a sentence for every version that shows a known discrepancy outside of its range, or does not show one inside."""
    entries = {entry.id: entry for entry in load_known() if entry.framework == "jax"}
    found = []
    for known in sorted({known for question in ASKED for known in question.known}):
        if known not in entries:
            found.append(f"{known}: no such entry")
            continue
        entry = entries[known]
        for version, answers in record.items():
            shown = any(known in q.known and shows(entry, q, answers[q.name]) for q in ASKED)
            if shown != (version in SpecifierSet(entry.versions)):
                found.append(f"jax {version}: {known} {'shows' if shown else 'does not show'}, and its range is {entry.versions}")
    return found


def tables(record: Answers) -> str:
    """Return what changed between the versions, in some of them and with the first version of each change, and what did not."""
    moved, same = [], []
    for question in ASKED:
        first, *changed = spans(question, record)
        right = f"{question.truth:.7g}"
        if changed:
            steps = (cell(question, record[version][question.name]) for version in STEPS)
            moved.append([question.name, right, *steps, ", ".join(version for version, _ in changed)])
        else:
            same.append([question.name, right, cell(question, first[1])])
    return "\n".join((table(("what changed", "right", *STEPS, "changed in"), moved), f"The same in all {len(record)} versions:\n",
                      table(("what did not", "right", "jax"), same)))


def main() -> None:
    """Ask the installed jax, keep its answers, write the tables, and say where the known list does not hold."""
    record: Answers = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    own = {question.name: answer(question) for question in ASKED}
    record = {version: record.get(version, own) for version in sorted({*record, jax.__version__}, key=Version)} | {jax.__version__: own}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    before, rest = PAGE.read_text().split(START)
    PAGE.write_text(f"{before}{START}\n{tables(record)}\n{END}{rest.split(END)[1]}")
    print(f"jax {jax.__version__}", *disagreements({jax.__version__: own}), sep="\n  ")


if __name__ == "__main__":
    main()
