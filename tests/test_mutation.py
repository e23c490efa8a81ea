"""What docs/mutation.md says is what mutation testing found, and the page is as new as that."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[1] / "benchmarks" / "mutation.py"
SPEC = importlib.util.spec_from_file_location("mutation", SOURCE)
assert SPEC is not None
assert SPEC.loader is not None
mutation: Any = importlib.util.module_from_spec(SPEC)
sys.modules["mutation"] = mutation
SPEC.loader.exec_module(mutation)

REASONS = """
[[kind]]
was = ', strict=True'
now = [', strict=False', ', ']
reason = "only guards"

[[survivor]]
module = "reference/linear.py"
function = "Linear.forward"
was = "y = x @ weight.T"
now = ["y = x @ weight.T.T.T"]
reason = "the same"
"""


def test_the_page_is_what_was_found() -> None:
    """docs/mutation.md is generated from the results and the reasons that are committed with it."""
    reasons = mutation.Reasons.read(mutation.REASONS.read_text(encoding="utf-8"))
    page = mutation.page(mutation.results(), reasons, [*mutation.config()["modules"]])
    written = mutation.TARGET.read_text(encoding="utf-8")
    assert written.replace(mutation.CHANGED, "") == page.replace(mutation.CHANGED, ""), f"stale: run {mutation.COMMAND} -- --report"


def test_every_module_with_rules_is_mutated() -> None:
    """A module that registers a layer or head is listed, and every module and test file that is listed is there."""
    listed = mutation.config()["modules"]
    registering = {f"reference/{path.name}" for path in (mutation.ROOT / "reference").glob("*.py") if any(mutation.registered(path))}
    assert registering <= set(listed)
    for module, own in listed.items():
        assert (mutation.ROOT / module).is_file()
        assert all((mutation.ROOT / "tests" / name).is_file() for name in own.get("tests", ()))
        assert mutation.selection(module)


def test_what_nobody_explained_is_said() -> None:
    """A reason is for one line of one module, or for a kind of rewriting; anything else is unexplained, in the table and in the list."""
    reasons = mutation.Reasons.read(REASONS)
    same = mutation.Survivor("Linear.forward", "y = x @ weight.T", "y = x @ weight.T.T.T")
    guard = mutation.Survivor("f", "zip(a, b, strict=True), zip(c, d, strict=True)", "zip(a, b, strict=True), zip(c, d, strict=False)")
    wrong = mutation.Survivor("Linear.forward", "y = x @ weight.T", "y = x @ weight")
    assert reasons.of("reference/linear.py", same) == "the same"
    assert reasons.of("reference/gated.py", same) is None
    assert reasons.of("reference/gated.py", guard) == "only guards"
    assert reasons.of("reference/linear.py", wrong) is None
    found = {"reference/linear.py": mutation.Result("0", "mutmut", {"killed": 6, "timeout": 1, "survived": 3}, (same, guard, wrong))}
    page = mutation.page(found, reasons, ["reference/linear.py", "reference/gated.py"])
    assert f"| `reference/linear.py`{mutation.CHANGED} | 10 | 7 | 2 | 1 | 0 | 70.0% | 87.5% |" in page
    assert "| `reference/gated.py` | not run |" in page
    assert "`Linear.forward`: **unexplained**\n\n```diff\n-y = x @ weight.T\n+y = x @ weight\n```" in page
    assert reasons.stale({"reference/linear.py": mutation.Result("0", "mutmut", {}, ())}) == [("reference/linear.py", same)]


def test_a_survivor_explained_twice_is_an_error() -> None:
    """Two reasons for one mutant are refused."""
    with pytest.raises(ValueError, match=r"mutation_survivors.toml: explained twice: got \('reference/linear.py', Survivor\("):
        mutation.Reasons.read(REASONS + REASONS[REASONS.index("[[survivor]]") :])


def test_the_package_is_laid_out_as_installed(tmp_path: Path) -> None:
    """Modules stand under the import name, `examples` are spared, and a file that has not changed keeps its date.

    A decorator that mutmut would stop at is applied at the end of the module.
    """
    mutation.stage("harness/judge/known/__init__.py", tmp_path)
    linear = tmp_path / "backproof" / "reference" / "linear.py"
    assert (tmp_path / "backproof" / "judge" / "known" / "torch.toml").is_file()
    assert "def examples(cls) -> Iterator[Example]:  # pragma: no mutate block\n" in linear.read_text()
    running = (tmp_path / "backproof" / "reference" / "rounding" / "running.py").read_text()
    assert "@overridable" not in running
    assert "\n\ndef running_sum(" in running
    assert "running_sum = overridable(running_sum)\n" in running
    assert 'only_mutate = ["backproof/judge/known/__init__.py"]' in (tmp_path / "pyproject.toml").read_text()
    before = linear.stat().st_mtime_ns
    mutation.stage("harness/judge/known/__init__.py", tmp_path)
    assert linear.stat().st_mtime_ns == before
