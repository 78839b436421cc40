"""What all parts of a study share: frozen, strict settings, and the number types they use."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


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


# YAML's `true` must not pass for 1, nor 2.5 for 2: counts are strict, rates are not, because
# YAML 1.1 reads `1e-3` as a string, which pydantic then turns into the number meant.
Count = Annotated[int, Field(strict=True, ge=1)]
SeedNumber = Annotated[int, Field(strict=True, ge=0, lt=2**32)]


def no_flag(value: object) -> object:
    """Refuse a truth value where a number is meant: Python takes one for the other."""
    if isinstance(value, bool):
        raise ValueError("give a number, not true or false")
    return value


def _name(value: str) -> str:
    if not value[:1].isalnum() or not value.replace("-", "").replace(".", "").isalnum():
        raise ValueError("use letters, digits, '-' and '.', a letter or digit first")
    return value


Rate = Annotated[float, BeforeValidator(no_flag), Field(gt=0)]
# Names become folders and options.
Name = Annotated[str, AfterValidator(_name)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
EpochSpan = Annotated[float, Field(gt=0)]
