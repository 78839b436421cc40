"""The work behind `swabench tune`, and before a study that is to be tuned first."""

from typing import TYPE_CHECKING

from swabench.cli.options import AskedUnits
from swabench.cli.printing import err, out, say
from swabench.study.study import Study

if TYPE_CHECKING:  # torch and pandas take seconds to import, and `--help` needs neither
    from swabench.analysis.publish import Published
    from swabench.records import RecordStore


def carry_out(
    asked: AskedUnits, study: Study, json: bool = False
) -> "tuple[Published, RecordStore]":
    """Train the trials that have no record, choose, and write what was chosen.

    Args:
        asked: Where, on what, and how loudly.
        study: The study as its file has it.
        json: Whether standard output is for an object alone.
    """
    from swabench.analysis.publish_tuning import publish_tuning
    from swabench.records import RecordStore
    from swabench.runs.diverged import listed
    from swabench.runs.tuning import diverged_trials, run_trials

    done = run_trials(study, asked.results, asked.experiment)
    say(f"tuning: {done} runs done, the others were done already", to=err if json else out)
    store = RecordStore(asked.results, study)
    lost = diverged_trials(study, store)
    if lost and study.diverged == "record":  # else the command ends in saying so
        say(f"tuning: {listed(lost)}; such trials are not chosen", to=err)
    return publish_tuning(study, store), store


def not_allowed_of_trials(study: Study, store: "RecordStore") -> str:
    """What is wrong with trials that diverged, by the study's setting; empty where nothing is."""
    from swabench.runs.diverged import not_allowed
    from swabench.runs.tuning import diverged_trials

    return not_allowed(study, diverged_trials(study, store)) if study.tuning else ""
