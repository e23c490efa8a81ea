"""What a file of a report holds is said once: what is written, what is accepted and what is restored follow from it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import backproof as bp
import pytest
from backproof.report.finding import FINDING, Finding
from backproof.report.results import KEY, REPORT, RUN, SELF_TEST, TALLY, Results, SelfTest, Tally
from backproof.report.schema import COUNT, NUMBER, TEXT, TEXTS, Form, record_of
from backproof.verify.store import FACTS, TABLES
from pydantic import TypeAdapter, ValidationError

SAMPLE = json.loads((Path(__file__).parents[2] / "reports" / "sample" / "report.json").read_text(encoding="utf-8"))
FOUND = [*SAMPLE["findings"], *SAMPLE["known"], *SAMPLE["conventions"]]


@dataclass
class Measurement:
    """A class with a field of each sort."""

    name: Annotated[str, TEXT]
    value: Annotated[float, replace(NUMBER, name="measured")]
    tags: Annotated[tuple[str, ...], TEXTS] = ()
    note: Annotated[str, replace(TEXT, needed=False)] = ""
    scratch: Any = None

    @property
    def size(self) -> Annotated[int, COUNT]:
        return len(self.tags)


RECORD = record_of(Measurement, first=("size",), last=("name",))


def test_a_record_follows_from_the_class() -> None:
    """Annotated fields and properties are written, in the order of the class and what was asked for, others are not."""
    described = RECORD.describe(Measurement("a", math.inf, ("x", "y"), scratch=object()))
    assert json.dumps(described) == '{"size": 2, "measured": "inf", "tags": ["x", "y"], "note": "", "name": "a"}'


def test_what_was_written_comes_back() -> None:
    """Under the attributes' names; a field that is not needed may be missing, another may not."""
    data = {"size": 1, "measured": "nan", "tags": ["x"], "name": "a"}
    restored = RECORD.restore(data)
    assert math.isnan(restored.pop("value"))
    assert restored == {"size": 1, "tags": ("x",), "name": "a"}
    del data["measured"]
    with pytest.raises(KeyError, match="measured"):
        RECORD.restore(data)


@pytest.mark.parametrize("change", [{"size": -1}, {"measured": "much"}, {"tags": "x"}, {"name": None}, {"note": 3}])
def test_what_is_accepted_follows_too(change: dict[str, Any]) -> None:
    """A value of another kind is refused, an unknown field kept."""
    schema = TypeAdapter(RECORD.accepts("Measurement"))
    data = {"size": 1, "measured": 0.5, "tags": ["x"], "name": "a", "later": 1}
    assert schema.validate_python(data) == data
    with pytest.raises(ValidationError):
        schema.validate_python({**data, **change})


def test_every_field_is_in_a_file_or_left_out_on_purpose() -> None:
    """What is not written of a finding are arrays and the source of a function; of the others all is."""
    written = {attribute for attribute, _ in FINDING.fields.values()}
    assert {f.name for f in fields(Finding)} - written == {"lowering", "step", "certificate"}
    for record, cls in ((REPORT, Results), (TALLY, Tally), (SELF_TEST, SelfTest)):
        assert {f.name for f in fields(cls)} <= {attribute for attribute, _ in record.fields.values()}


def test_the_committed_sample_has_the_fields_in_their_order() -> None:
    """Files that were written before hold what is written now, byte for byte."""
    assert list(SAMPLE) == list(REPORT.fields)
    assert list(SAMPLE["tallies"][0]) == ["adapter" if name == "subject" else name for name in (*KEY, *TALLY.fields)]
    assert list(SAMPLE["self_test"]) == list(SELF_TEST.fields)
    assert len(FOUND) > 5
    for data in FOUND:
        assert json.dumps(Finding.restored(data).describe()) == json.dumps(data)


@pytest.mark.parametrize("name", ["adapter" if name == "subject" else name for name in FINDING.fields])
def test_a_finding_without_a_field_is_none(name: str) -> None:
    """Each field is needed, and a value that cannot be of its kind is refused."""
    data = {key: value for key, value in FOUND[0].items() if key != name}
    with pytest.raises(ValueError, match="finding"):
        Finding.restored(data)


def test_a_finding_of_an_older_version_has_no_condition() -> None:
    """Its diagnosis has an empty one."""
    data = {**FOUND[0], "diagnosis": {name: text for name, text in FOUND[0]["diagnosis"].items() if name != "condition"}}
    assert Finding.restored(data).diagnosis.condition == ""


def test_the_store_has_a_column_for_each_field_of_a_tally() -> None:
    """Of tallies and certificates, counts as whole numbers, margins not."""
    columns = ", ".join(f"{name} {'INTEGER' if form is COUNT else 'REAL'} NOT NULL" for name, (_, form) in TALLY.fields.items())
    assert TABLES.count(columns) == 2
    assert "compared INTEGER NOT NULL" in columns
    assert "margin REAL NOT NULL" in columns


def test_a_campaign_needs_the_options_that_a_report_may_leave_out() -> None:
    """Both are checked against one table."""
    options = {"adapters": ["torch"], "precisions": ["float64"], "cases": None, "seed": 0, "layers": None}
    assert FACTS["options"].validate_python(options) == options
    for name in options:
        fewer = {key: value for key, value in options.items() if key != name}
        with pytest.raises(ValidationError):
            FACTS["options"].validate_python(fewer)
    assert TypeAdapter(RUN.accepts("Options")).validate_python({"adapters": [], "precisions": []}) == {"adapters": [], "precisions": []}


def test_tallies_add_counts_and_keep_the_larger_margin() -> None:
    """So does a self-test with its counts and lists."""
    tally = Tally(3, 1, 0, 2, 0.5)
    tally.merge(Tally(4, 0, 1, 1, 0.25))
    assert tally == Tally(7, 1, 1, 3, 0.5)
    test = SelfTest(2, 1, 1, 0, ["a"])
    test.merge(SelfTest(1, 1, 1, 3, ["b"]))
    assert test == SelfTest(3, 2, 2, 3, ["a", "b"])


def test_forms_are_frozen() -> None:
    """A form that one field changes for itself leaves that of the others."""
    assert replace(NUMBER, name="measured") != NUMBER
    assert Form(str).needed
    assert bp.Report().describe()["margin"] == 0.0


def test_a_candidate_is_called_one_in_files() -> None:
    """A finding and a tally of a check name the candidate, those of a run the adapter; both come back as what they were."""
    report = bp.check(lambda x: (x, lambda dy: (2 * dy, {})), bp.Identity(), framework="numpy", cases=2)
    data = report.describe()
    finding, label = report.findings[0], data["options"]["candidate"]
    assert label == "numpy:lambda"
    assert (finding.candidate, finding.adapter) == (label, "")
    for described in (*data["findings"], *data["tallies"]):
        assert described["candidate"] == label
        assert "adapter" not in described
    assert Finding.restored(data["findings"][0]).candidate == label
    assert Finding.restored(FOUND[0]).candidate == ""
    TypeAdapter(REPORT.accepts("Report")).validate_python(json.loads(report.to_json()))
    assert "candidate" in str(report).splitlines()[2]
