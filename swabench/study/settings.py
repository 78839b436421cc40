"""What all parts of a study share: frozen, strict settings, names and texts."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from swabench.study.limits import LONGEST_NAME, LONGEST_TEXT


@dataclass(frozen=True)
class ChangesNoResult:
    """Marks a setting that no result depends on, such as a title: identities leave it out."""


@dataclass(frozen=True)
class AddedLater:
    """Marks a setting that is younger than some records.

    While it has its neutral value, with which runs are what they were before there was such a
    setting, identities leave it out, so that older records are still found.
    """

    neutral: object


CHANGES_NO_RESULT = ChangesNoResult()

_CONTROL = ("Cc", "Cs", "Zl", "Zp")
"""Of Unicode's categories: control characters, halves of characters, ends of lines."""


class Settings(BaseModel):
    """A frozen part of a study. Unknown keys, NaN and infinities are errors, not defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def what_results_depend_on(settings: Settings) -> dict[str, Any]:
    """Settings as JSON's types, without those that change no result."""
    kept = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if any(_leaves_out(mark, value) for mark in field.metadata):
            del kept[name]
        elif isinstance(value, Settings):
            kept[name] = what_results_depend_on(value)
    return kept


def _leaves_out(mark: object, value: object) -> bool:
    if isinstance(mark, AddedLater):
        return value == mark.neutral
    return isinstance(mark, ChangesNoResult)


def _name(value: str) -> str:
    if not value[:1].isalnum() or not re.sub("[-._]", "", value).isalnum():
        raise ValueError("use letters, digits, '-', '_' and '.', a letter or digit first")
    if len(value.encode()) > LONGEST_NAME:
        raise ValueError(f"is longer than {LONGEST_NAME} bytes; names become folders")
    return value


def no_control(value: str) -> str:
    """Refuse control characters: a terminal obeys them, and a table is cut by a line's end."""
    found = next((char for char in value if unicodedata.category(char) in _CONTROL), None)
    if found is not None:
        raise ValueError(f"has the control character {found!a}; take it out")
    return value


# Names become folders and options.
Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(no_control)]
# YAML's block texts end in a line's end, which means nothing.
Title = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=LONGEST_TEXT),
    AfterValidator(no_control),
]
