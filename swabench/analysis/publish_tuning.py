"""What a tuning leaves for people: all trials, the choices, and a picture."""

import pandas as pd

from swabench.analysis import table
from swabench.analysis.figures.tuning import draw_tuning
from swabench.analysis.frame import Records, collect, incompleteness, missing_runs
from swabench.analysis.manifest import manifest
from swabench.analysis.publish import Published, write_picture
from swabench.analysis.tuning import choose, chosen_settings, trial_frame
from swabench.records import RecordStore
from swabench.study.search_space import trial_study, tuning_of
from swabench.study.study import Study
from swabench.study.tuning import Choices, own_name

_CHOSEN = {
    "loss": "lowest mean validation loss of what it hands over; ± is that mean's standard error",
    "accuracy": "highest mean validation accuracy of what it hands over, of equal ones the lowest "
    "loss; ± is the mean loss's standard error",
}
"""By `tuning.chosen_by`."""


def publish_tuning(study: Study, store: RecordStore) -> Published:
    """Choose by the records of a study's trials, and write what was chosen and all that was tried.

    Args:
        study: The study that is tuned.
        store: Its records, among which those of its trials lie.

    Raises:
        InputError: There are no records, or a family has no trial with all seeds.
    """
    trials = trial_study(study)
    records = collect(trials, store.of_trials(), list(trials.seeds), list(trials.methods))
    frame = trial_frame(study, records)
    choices = choose(study, frame, store.search_space())
    shown, notes = presentable(choices, frame), in_sentences(study, choices, records)
    picture = draw_tuning(study, frame)
    if picture.skipped:
        notes.append(f"{picture.name}: not drawn: {picture.skipped}")
    files = [
        store.write_text("tuning.csv", table.as_csv(frame, "%.6g")),
        store.write_text("tuning.md", as_markdown(study, shown, notes)),
        *write_picture(store, picture),
        store.write_choices(choices),
        store.write_text("tuning-manifest.json", manifest(trials, records, [], trials.seeds)),
    ]
    content = {
        "study": study.name,
        "title": study.title,
        **choices.model_dump(mode="json"),
        "all_trials": frame.to_dict(orient="records"),
    }
    return Published(files, f"Chosen settings: {study.title}", shown, notes, content=content)


def presentable(choices: Choices, frame: pd.DataFrame) -> pd.DataFrame:
    """What was chosen, with the accuracies that it has."""
    shown = chosen_settings(choices)
    accuracies = frame[frame["chosen"]].set_index("family")["accuracy"]
    in_words = [f"{accuracies[family]:.2f}" for family in shown["Family"]]
    shown.insert(len(shown.columns) - 1, "Validation accuracy, %", in_words)
    return shown


def in_sentences(study: Study, choices: Choices, records: Records) -> list[str]:
    """What to know of a tuning beside its table."""
    tuning = tuning_of(study)
    lines = []
    for side, family in choices.sides.items():
        of_side, loss = tuning.sides[side], choices.families[family].loss
        lines.append(
            f"Side {side}: {family} ({loss:.4f} nats), the best of {', '.join(of_side)} "
            f"({len(of_side) * tuning.trials_per_family} trials)."
        )
    edges = [
        f"{family} ({', '.join(map(own_name, choice.at_edge))})"
        for family, choice in choices.families.items()
        if choice.at_edge
    ]
    if edges:
        lines.append(
            f"At the edge of their grids: {', '.join(edges)}. A better value may lie beyond; who "
            "extends one grid must extend all, so that trials stay equal."
        )
    if lost := records.divergences():
        lines.append(f"{'; '.join(lost)}. Such trials are not chosen.")
    if lacking := missing_runs(records, tuning.seeds):
        lines.append(f"{incompleteness(lacking)} Such trials are not chosen.")
    return lines


def as_markdown(study: Study, shown: pd.DataFrame, notes: list[str]) -> str:
    """The whole of `tuning.md`."""
    tuning = tuning_of(study)
    seeds = ", ".join(map(str, tuning.seeds))
    parts = [
        f"# Chosen settings: {study.title}",
        f"Each of the {len(tuning.families)} families has {tuning.trials_per_family} trials at "
        f"seeds {seeds}, none of which the study itself uses. Chosen is the trial with the "
        f"{_CHOSEN[tuning.chosen_by]} over seeds, which share their images and are shared by all "
        "trials: it says little about which of two trials is better, and near equals are chosen by "
        "chance. The test images were not looked at. All trials: `tuning.csv`.",
        str(shown.to_markdown(index=False, disable_numparse=True)),
        "\n".join(f"- {note}" for note in notes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
