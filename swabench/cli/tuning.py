"""The work behind `swabench tune`, and before a study that is to be tuned first."""

from typing import TYPE_CHECKING

from swabench.cli.options import AskedWork
from swabench.cli.printing import err, out, say
from swabench.study.study import Study

if TYPE_CHECKING:  # torch and pandas take seconds to import, and `--help` needs neither
    from swabench.analysis.publish import Published
    from swabench.records import RecordStore


def carry_out(
    asked: AskedWork, study: Study, json: bool = False
) -> "tuple[Published, RecordStore]":
    """Train the trials that have no record, choose, and write what was chosen.

    Args:
        asked: Where, on what, and how loudly.
        study: The study as its file has it.
        json: Whether standard output is for an object alone.
    """
    from swabench.analysis.publish_tuning import publish_tuning
    from swabench.records import RecordStore
    from swabench.runs.tuning import run_trials

    done, diverged = run_trials(study, asked.results, asked.experiment)
    say(f"tuning: {done} runs done, the others were done already", to=err if json else out)
    if diverged:
        say(f"tuning: {diverged}; such trials are not chosen", to=err)
    store = RecordStore(asked.results, study)
    return publish_tuning(study, store), store
