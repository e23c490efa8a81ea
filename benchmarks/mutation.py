"""Mutation testing with mutmut: which small change to a rule, or to the code that decides, does no test notice?

    python benchmarks/mutation.py [MODULE...]     # runs the mutants that have no result yet, of these modules or of all
    python benchmarks/mutation.py --again ...     # runs those that survived once more, after a test was added
    python benchmarks/mutation.py --report        # writes docs/mutation.md anew

The package is laid out as it is installed, in a folder of its own for each module, where mutmut works. mutation.toml says what is
mutated, mutation_results.json holds what became of it, mutation_survivors.toml the reason for every mutant that is no mistake.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CONFIG, RESULTS, REASONS = (Path(__file__).with_name(f"mutation{suffix}") for suffix in (".toml", "_results.json", "_survivors.toml"))
TARGET = ROOT / "docs" / "mutation.md"
COMMAND = "tox run -e mutation"
COPIED = ("tests", "benchmarks", "docs")
RULES = "tests/reference/test_rules.py"
KILLED, WAITING = ("killed", "timeout"), "not checked"
CHANGED = " (changed since)"
RAISED = 255  # pytest could not be run, which is no kill, though mutmut counts it with the timeouts
UNESCAPED = "disable_test_id_escaping_and_forfeit_all_rights_to_community_support"  # escaped names change each time they are collected


@dataclass(frozen=True, order=True)
class Survivor:
    """A mutant that no test notices: the function, what stands there, and what stands there in the mutant."""

    function: str
    was: str
    now: str


@dataclass(frozen=True)
class Result:
    """What became of a module's mutants: how many by mutmut's status, and those that survived."""

    source: str
    tool: str
    statuses: Mapping[str, int]
    survivors: tuple[Survivor, ...]

    @property
    def mutants(self) -> int:
        """How many were run."""
        return sum(self.statuses.values()) - self.waiting

    @property
    def waiting(self) -> int:
        """How many were not, since a run was broken off."""
        return self.statuses.get(WAITING, 0)

    @property
    def killed(self) -> int:
        return sum(self.statuses.get(status, 0) for status in KILLED)


def config() -> dict[str, Any]:
    return tomllib.loads(CONFIG.read_text(encoding="utf-8"))


# The folder that mutmut works in.


def stage(module: str, work: Path) -> None:
    """Lay out the package, its tests and mutmut's configuration; a file that has not changed keeps its date, and so its results."""
    settings = config()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    for name, folder in project["setuptools"]["package-dir"].items():
        for path in sorted((ROOT / folder).iterdir()):
            if path.is_file() and path.suffix != ".pyc":
                _put(work.joinpath(*name.split("."), path.name), _prepared(path, settings["examples"], settings["decorator"]))
        for pattern in project["setuptools"]["package-data"].get(name, ()):
            for path in (ROOT / folder).glob(pattern):
                _put(work.joinpath(*name.split("."), path.relative_to(ROOT / folder)), path.read_bytes())
    for folder in COPIED:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                _put(work / path.relative_to(ROOT), path.read_bytes())
    chosen = {"only_mutate": [str(staged(module))], "pytest_add_cli_args_test_selection": selection(module)}
    tables = {"tool.mutmut": settings["mutmut"] | chosen, "tool.pytest.ini_options": project["pytest"]["ini_options"] | {UNESCAPED: True}}
    _put(work / "pyproject.toml", "\n".join(_table(name, values) for name, values in tables.items()).encode())


def staged(module: str) -> Path:
    """Return where a module of the repository stands in the package."""
    folder, _, rest = module.partition("/")
    return Path("backproof") / (rest if folder == "harness" else module)


def selection(module: str) -> list[str]:
    """Return what pytest is told: the module's test files, and from test_rules.py its own layers and those of the configuration."""
    own = config()["modules"][module]
    files, without = [f"tests/{name}" for name in own.get("tests", ())], [f"not {word}" for word in own.get("without", ())]
    words = [*(f"[{name}" for name in registered(ROOT / module)), *own.get("rules", ())]
    if not words:
        return [*files, "-k", " and ".join(without)] if without else files
    chosen = " or ".join([*(Path(name).stem for name in files), "wrong_options", *words])
    return [*files, RULES, "-k", " and ".join([f"({chosen})", "not wrong_scale", *without])]  # which plants mistakes of its own, in vain


def registered(path: Path) -> Iterator[str]:
    """Yield the classes of a module that bear the decorator `register`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and any(isinstance(d, ast.Name) and d.id == "register" for d in node.decorator_list):
            yield node.name


def _prepared(path: Path, pattern: str, decorator: str) -> bytes:
    """Return a file, with mutmut told to leave alone the functions whose first line matches, and a decorator applied at the end."""
    if path.suffix != ".py":
        return path.read_bytes()
    text = path.read_text(encoding="utf-8")
    decorated = re.compile(rf"^@{decorator}\n(?=def (\w+))", flags=re.MULTILINE)
    names = decorated.findall(text)
    text = decorated.sub("", text) + "".join(f"{name} = {decorator}({name})\n" for name in names)
    return re.sub(rf"^(\s*{pattern}.*:)$", r"\1  # pragma: no mutate block", text, flags=re.MULTILINE).encode()


def _put(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _table(name: str, values: Mapping[str, Any]) -> str:
    """Return a TOML table of texts, numbers, truth values and lists of texts, all of which JSON writes as TOML does."""
    return f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


# Running it.


def run(module: str, work: Path, *, again: bool, jobs: int) -> Result:
    """Run a module's mutants that have no result yet, or with `again` those that survived, and return what became of all."""
    stage(module, work)
    names = [name for name, status in statuses(module, work).items() if status not in KILLED] if again else []
    if names or not again:
        command = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(jobs), *names]
        subprocess.run(command, cwd=work, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    return gather(module, work)


def gather(module: str, work: Path) -> Result:
    """Return what became of a module's mutants so far."""
    found = statuses(module, work)
    survivors = [_survivor(name, module, work) for name, status in found.items() if status not in (*KILLED, WAITING)]
    counts = dict(sorted(Counter(found.values()).items()))
    return Result(digest(module), f"mutmut {version('mutmut')}", counts, tuple(sorted(survivors)))


def digest(module: str) -> str:
    """Return what a module's text is told by."""
    return hashlib.sha256((ROOT / module).read_bytes()).hexdigest()[:12]


def statuses(module: str, work: Path) -> dict[str, str]:
    """Return mutmut's status of every mutant of a module by its name."""
    from mutmut.stats import status_by_exit_code

    path = work / "mutants" / f"{staged(module)}.meta"
    codes = json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"] if path.exists() else {}
    return {name: "error" if code == RAISED else status_by_exit_code[code] for name, code in codes.items()}


def _survivor(name: str, module: str, work: Path) -> Survivor:
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    with chdir(work):
        lines = get_diff_for_mutant(name, path=staged(module)).splitlines()[2:]
    was, now = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    function = name.rpartition(".")[2].partition("__mutmut_")[0]
    return Survivor(function.removeprefix("x_").removeprefix("xǁ").replace("ǁ", "."), was, now)


# What was found.


def results() -> dict[str, Result]:
    """Return the kept results by module."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return {module: Result(**(found | {"survivors": tuple(Survivor(**s) for s in found["survivors"])})) for module, found in kept.items()}


def keep(module: str, found: Result) -> None:
    kept = {name: asdict(result) for name, result in (results() | {module: found}).items()}
    ordered = {name: kept[name] for name in config()["modules"] if name in kept}
    RESULTS.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Reasons:
    """Why survivors are no mistakes: of single ones, by module and survivor, and of kinds, by pattern."""

    survivors: Mapping[tuple[str, Survivor], str]
    kinds: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, text: str) -> Reasons:
        data = tomllib.loads(text)
        single: dict[tuple[str, Survivor], str] = {}
        for entry in data.get("survivor", ()):
            for now in entry["now"]:
                if (key := (entry["module"], Survivor(entry["function"], entry["was"], now))) in single:
                    raise ValueError(f"mutation_survivors.toml: explained twice: got {key}")
                single[key] = entry["reason"]
        return cls(single, tuple(data.get("kind", ())))

    def of(self, module: str, survivor: Survivor) -> str | None:
        """Return the reason of a survivor; None where nobody gave one."""
        if (module, survivor) in self.survivors:
            return self.survivors[module, survivor]
        return next((kind["reason"] for kind in self.kinds if survivor.now in _rewritten(kind, survivor.was)), None)

    def stale(self, found: Mapping[str, Result]) -> list[tuple[str, Survivor]]:
        """Return the single reasons for which there is no survivor any more in the modules that were run."""
        return sorted((module, survivor) for module, survivor in self.survivors
                      if module in found and survivor not in found[module].survivors)


def _rewritten(kind: Mapping[str, Any], text: str) -> Iterator[str]:
    """Yield a line with one of the places where the kind's pattern matches rewritten in one of the kind's ways."""
    for match in re.finditer(kind["was"], text):
        yield from (text[: match.start()] + match.expand(way) + text[match.end() :] for way in kind["now"])


# The page.

HEAD = f"""# Mutation testing

Written by `{COMMAND}` (benchmarks/mutation.py); what is mutated and which tests judge it stands in benchmarks/mutation.toml.

[mutmut](https://github.com/boxed/mutmut) makes one small change at a time to a function, such as `+` to `-`, `<` to `<=`, 0 to 1, an
argument or what is assigned to None, and runs the tests that reach the function. A mutant is killed when one of them fails. Where a
test should have noticed a change, there is one now that does. The rest is listed below with the reason why it is no mistake.

Not mutated: docstrings, what is raised and its words, each layer's `examples` (the settings that the tests run on), and what mutmut
leaves out: class attributes, module constants, decorated functions such as properties, and the calls `len` and `isinstance`.

"""


def page(found: Mapping[str, Result], reasons: Reasons, modules: Sequence[str]) -> str:
    """Return docs/mutation.md."""
    rows, sections = [], []
    total = Counter(unexplained=0, waiting=0)
    for module in modules:
        if module not in found:
            rows.append(f"| `{module}` | not run | | | | | | |")
            continue
        result = found[module]
        explained = {survivor: reasons.of(module, survivor) for survivor in result.survivors}
        without = sum(explained[survivor] is None for survivor in result.survivors)
        equivalent = len(result.survivors) - without
        counts = {"mutants": result.mutants, "killed": result.killed, "equivalent": equivalent, "unexplained": without,
                  "waiting": result.waiting}
        total.update(counts)
        rows.append(_row(f"`{module}`" + ("" if result.source == digest(module) else CHANGED), counts))
        if explained:
            sections.append(_section(module, result.survivors, explained))
    lines = ["| module | mutants run | killed | equivalent | unexplained | not run | killed of all | killed of those not equivalent |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |", *rows, _row("all that were run", total)]
    tools = ", ".join(sorted({result.tool for result in found.values()}))
    return HEAD + "\n".join(lines) + f"\n\nRun with {tools}.\n\n# Survivors\n\n" + "\n".join(sections)


def _row(name: str, counts: Mapping[str, int]) -> str:
    mutants, killed, equivalent = (counts.get(key, 0) for key in ("mutants", "killed", "equivalent"))
    scores = (f"{killed / size:.1%}" if size else "-" for size in (mutants, mutants - equivalent))
    return f"| {name} | {mutants} | {killed} | {equivalent} | {counts['unexplained']} | {counts['waiting']} | {' | '.join(scores)} |"


def _section(module: str, survivors: Sequence[Survivor], explained: Mapping[Survivor, str | None]) -> str:
    """Return a module's survivors by function and reason, as changes of lines."""
    lines = [f"## {module}", ""]
    groups: dict[tuple[str, str], list[Survivor]] = {}
    for survivor in survivors:
        groups.setdefault((survivor.function, explained[survivor] or "**unexplained**"), []).append(survivor)
    for (function, why), members in groups.items():
        lines += [f"`{function}`: {why}", "", "```diff"]
        for was in dict.fromkeys(member.was for member in members):
            lines += [f"-{was}", *(f"+{member.now}" for member in members if member.was == was)]
        lines += ["```", ""]
    return "\n".join(lines)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as reference/linear.py; all of mutation.toml if left out")
    parser.add_argument("--again", action="store_true", help="run the survivors once more")
    parser.add_argument("--gather", action="store_true", help="run nothing, take what there is of a run that was broken off")
    parser.add_argument("--report", action="store_true", help="run nothing, write docs/mutation.md")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "mutation", help="where mutmut works; results are kept there")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    options = parser.parse_args()
    known = config()["modules"]
    unknown = sorted(set(options.modules) - set(known))
    if unknown:
        parser.error(f"unknown module: got {', '.join(unknown)}, expected some of {', '.join(known)}")
    for module in () if options.report else options.modules or [*known]:
        work = options.work.absolute() / module.removesuffix(".py").replace("/", "-")
        found = gather(module, work) if options.gather else run(module, work, again=options.again, jobs=options.jobs)
        if found.statuses:
            keep(module, found)
        print(f"{module}: {found.killed} of {found.mutants} killed", flush=True)
    reasons = Reasons.read(REASONS.read_text(encoding="utf-8"))
    TARGET.write_text(page(results(), reasons, [*known]), encoding="utf-8")
    for module, survivor in reasons.stale(results()):
        print("explained, but no survivor:", module, survivor, sep="\n    ")


if __name__ == "__main__":
    main()
