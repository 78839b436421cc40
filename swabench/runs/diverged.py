"""Runs whose loss left the finite numbers, in words: a result, unless the study says otherwise."""

from collections.abc import Sequence

from swabench.records import Record
from swabench.study.study import Study


def listed(runs: Sequence[Record]) -> str:
    """Which runs diverged and when, in a line; empty where none did."""
    together: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        together.setdefault((run.method, str(run.diverged)), []).append(str(run.seed))
    parts = [
        f"{name} at seed{'s' * (len(seeds) > 1)} {', '.join(seeds)} ({when})"
        for (name, when), seeds in together.items()
    ]
    return f"diverged: {'; '.join(parts)}" if parts else ""


def not_allowed(study: Study, runs: Sequence[Record]) -> str:
    """What is wrong with runs that diverged, by the study's setting; empty where nothing is."""
    if not runs or study.diverged == "record":
        return ""
    return (
        f"{listed(runs)}. They are recorded so, and are not trained again: lower the learning "
        "rate, or set `diverged: record` in the study where that is a result"
    )


def without_start(starts: Sequence[Record]) -> str:
    """Why nothing was fine-tuned at some seeds, whose pretraining diverged; empty without such."""
    if not starts:
        return ""
    return f"{listed(starts)}. No method can start there: lower the learning rate of `pretrain`"
