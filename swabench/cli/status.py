"""The work behind `swabench status`."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swabench.study.search_space import trial_study
from swabench.study.study import Study
from swabench.system.progress import duration

if TYPE_CHECKING:  # pandas takes long to import, and `--help` needs none
    import pandas as pd

    from swabench.records.status import Begun


def status_of(results: Path, study: Study, seeds: Sequence[int]) -> dict[str, Any]:
    """How far a study is, for `status --json`.

    Returns:
        `runs` counts the states of each run over the seeds, `trials` those of its tuning;
        `under_way` and `interrupted` list groups of runs that were begun, `damaged` the runs
        that are; `landscape` counts its parts.
    """
    from swabench.landscape.parts import wanted_parts
    from swabench.records import RecordStore
    from swabench.records.status import begun_groups, is_measured, states

    store = RecordStore.to_read(results, study)
    found = states(store, study.run_names, seeds)
    groups = begun_groups(store)
    trials: Counter[str] = Counter()
    if study.tuning:
        trial = trial_study(study)
        trials.update(states(store.of_trials(), trial.run_names, trial.seeds).values())
        groups += begun_groups(store.of_trials())
    parts = wanted_parts(study, seeds)
    return {
        "study": study.name,
        "seeds": list(seeds),
        "runs": {name: Counter(found[name, seed] for seed in seeds) for name in study.run_names},
        "trials": trials,
        "under_way": [_group(group) for group in groups if group.works],
        "interrupted": [_group(group) for group in groups if not group.works],
        "damaged": [
            {"run": name, "seed": seed}
            for (name, seed), state in found.items()
            if state == "damaged"
        ],
        "landscape": {
            "parts": len(parts),
            "done": sum(is_measured(store, part, seed) for part, seed in parts),
        },
    }


def as_table(status: dict[str, Any]) -> "pd.DataFrame":
    """The counts, with a column for each state that occurs."""
    import pandas as pd

    from swabench.records.status import STATES

    counts = pd.DataFrame.from_dict(status["runs"], orient="index")
    occurring = [state for state in STATES if state in counts]
    shown = counts[occurring].fillna(0).astype(int).astype(str).replace("0", "")
    return shown.rename_axis("run").reset_index()


def in_words(status: dict[str, Any]) -> list[str]:
    """What else there is to say, in lines."""
    lines = []
    if trials := status["trials"]:
        counts = ", ".join(f"{count} {state}" for state, count in trials.items())
        lines.append(f"tuning: {counts}")
    landscape = status["landscape"]
    if landscape["parts"]:
        lines.append(f"landscape: {landscape['done']} of {landscape['parts']} parts done")
    lines += [
        f"under way: {_in_words(group)}, by process {group['process']} on {group['host']}"
        for group in status["under_way"]
    ]
    lines += [
        f"interrupted: {_in_words(group)}; the command that began it goes on from "
        f"{'there' if group['kept'] == group['epoch'] else _kept(group)}"
        for group in status["interrupted"]
    ]
    if status["damaged"]:
        lines.append("damaged: `swabench repair` names what is, and removes it")
    return lines


def _group(group: "Begun") -> dict[str, Any]:
    return {**asdict(group.worker), "runs": list(group.worker.runs), "folder": str(group.folder)}


def _in_words(group: dict[str, Any]) -> str:
    return (
        f"{', '.join(group['runs'])} at seed {group['seed']}, {group['epoch']} of "
        f"{group['epochs']} epochs, taken up {duration(time.time() - group['since'])} ago"
    )


def _kept(group: dict[str, Any]) -> str:
    return f"epoch {group['kept']}" if group["kept"] else "its start"
