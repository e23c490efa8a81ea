"""What a report's files hold, field by field: how each kind of value is written as JSON, checked when it is read, and restored.

A class says it once, beside each of its fields: `excess: Annotated[float, NUMBER]`. What is written, what is accepted and what is kept
in a campaign's store derive from that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, NotRequired, get_type_hints

from backproof.judge.verdicts import VERDICTS
from pydantic import AfterValidator, ConfigDict, Field, with_config
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

__all__ = ["COUNT", "FLAG", "NUMBER", "OPEN", "SUBJECT", "TEXT", "TEXTS", "VERDICT", "CandidateLabel", "Count", "Form", "Record", "Verdict",
           "kind_of", "number", "record_of", "subject_of", "subjects_of"]

OPEN = ConfigDict(strict=True, extra="allow")  # a later version may say more


class CandidateLabel(str):
    """What a check calls its candidate, such as `torch:MyLayerNorm`, where a run has the name of an adapter."""

    __slots__ = ()


def kind_of(subject: str) -> str:
    """Return what a subject is, which is also its name in a file: `candidate` or `adapter`."""
    return "candidate" if isinstance(subject, CandidateLabel) else "adapter"


def subject_of(data: Mapping[str, Any]) -> str:
    """Return what was judged, of a finding or tally as a file holds it; raise KeyError where neither name is there."""
    return CandidateLabel(data["candidate"]) if "candidate" in data else str(data["adapter"])


def subjects_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what was judged, of the options of a report as a file holds them."""
    return (subject_of(options),) if "candidate" in options else tuple(options["adapters"])


def number(value: float) -> float | str:
    """Return a number that JSON can hold: `inf` and `nan` are written as strings."""
    value = float(value)
    return value if math.isfinite(value) else str(value)


def _number(value: Any) -> Any:
    """Accept what `number` writes."""
    if isinstance(value, str) and value in {"inf", "-inf", "nan"}:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**1023 and math.isfinite(value):
        return value
    raise PydanticCustomError("number", "Input should be a number, 'inf', '-inf' or 'nan'")


def _with_subject(data: Any) -> Any:
    """Accept what says what was judged."""
    if "adapter" in data or "candidate" in data:
        return data
    raise PydanticCustomError("subject", "an object with the field adapter or candidate")


Number = Annotated[Any, AfterValidator(_number)]
Count = Annotated[int, Field(ge=0, le=2**63)]
Verdict = Literal[*VERDICTS]  # type: ignore[valid-type]  # mypy reads no table


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Form:
    """One kind of value: `accepts` is the type that pydantic checks in a file, `write` and `restore` are the ways there and back.

    `name` is the field's name in the file where that is another than the attribute's; a field that is not `needed` may be missing.
    """

    accepts: Any
    write: Callable[[Any], Any] = _unchanged
    restore: Callable[[Any], Any] = _unchanged
    name: str = ""
    needed: bool = True


TEXT = Form(str, restore=str)
SUBJECT = Form(str)
"""What was judged: called `adapter` or `candidate` in a file."""
TEXTS = Form(list[str], write=list, restore=tuple)
FLAG = Form(bool, restore=bool)
COUNT = Form(Count, restore=int)
NUMBER = Form(Number, write=number, restore=float)
VERDICT = Form(Verdict, restore=str)


@dataclass(frozen=True)
class Record:
    """The fields of one kind of object, by their names in the file and in its order: each attribute and its form."""

    fields: Mapping[str, tuple[str, Form]]

    @classmethod
    def of(cls, forms: Mapping[str, Form]) -> Record:
        """Return the record of an object whose attributes have the names of the file."""
        return cls({name: (name, form) for name, form in forms.items()})

    def describe(self, thing: Any) -> dict[str, Any]:
        """Return an object as JSON-ready data."""
        return {kind_of(getattr(thing, attribute)) if form is SUBJECT else name: form.write(getattr(thing, attribute))
                for name, (attribute, form) in self.fields.items()}

    def restore(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes of the object that was described; raise KeyError for a field that is missing and needed."""
        return {attribute: subject_of(data) if form is SUBJECT else form.restore(data[name])
                for name, (attribute, form) in self.fields.items() if form is SUBJECT or form.needed or name in data}

    def accepts(self, title: str) -> Any:
        """Return the type of the data, for pydantic; fields that it does not know are kept as they are."""
        make: Any = TypedDict
        forms = [form for _, form in self.fields.values()]
        kinds = {name: form.accepts if form.needed else NotRequired[form.accepts] for name, (_, form) in self.fields.items()
                 if form is not SUBJECT}
        if SUBJECT not in forms:
            return with_config(OPEN)(make(title, kinds))
        named = with_config(OPEN)(make(title, {**kinds, "adapter": NotRequired[str], "candidate": NotRequired[str]}))
        return Annotated[named, AfterValidator(_with_subject)]

    def accepts_many(self, title: str) -> Any:
        """Return the type of a list of such data."""
        many: Any = list
        return many[self.accepts(title)]

    def names(self, form: Form) -> tuple[str, ...]:
        """Return the attributes of a form."""
        return tuple(attribute for attribute, kind in self.fields.values() if kind is form)


def record_of(cls: type, first: Iterable[str] = (), last: Iterable[str] = ()) -> Record:
    """Return the record of a dataclass: its fields and properties whose annotation names a form, in the order of the class.

    `first` and `last` are attributes that stand before and behind all others.
    """
    hints = get_type_hints(cls, include_extras=True)
    hints = {field.name: hints[field.name] for field in fields(cls)}
    hints |= {name: get_type_hints(value.fget, include_extras=True).get("return") for name, value in vars(cls).items()
              if isinstance(value, property)}
    forms = {attribute: form for attribute, hint in hints.items() for form in getattr(hint, "__metadata__", ()) if isinstance(form, Form)}
    order = [*first, *(attribute for attribute in forms if attribute not in {*first, *last}), *last]
    return Record({forms[attribute].name or attribute: (attribute, forms[attribute]) for attribute in order})
