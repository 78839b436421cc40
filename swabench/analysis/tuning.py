"""What tuning measured, and what it chooses: each family's best trial on the validation images.

Only validation images decide, and what counts is what a trial hands over: the average where its
method averages.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from swabench.analysis.frame import Records
from swabench.study.search_space import tuning_of
from swabench.study.study import Study
from swabench.study.tuning import Choice, Choices, Tuning, in_words, own_name
from swabench.system.errors import InputError


def trial_frame(study: Study, records: Records) -> pd.DataFrame:
    """One row a trial, in the order of the study's families and grids.

    Args:
        study: The study that is tuned.
        records: Of its trials (`study.search_space.trial_study`).

    Returns:
        Columns family, trial, one for each setting (NaN where a family has no such setting),
        seeds, diverged (at how many of them), loss (mean validation loss in nats) and accuracy
        (validation, percent) with their standard errors, chosen, and at_edge: the settings whose
        chosen value is the smallest or largest of several. A trial that lacks a seed keeps its row
        and is not chosen; so does one that diverged at a seed, without numbers.

    Raises:
        InputError: A family has no trial that can be chosen.
    """
    tuning = tuning_of(study)
    trials, rows = tuning.trials(study.methods), []
    for name, trial in trials.items():
        row: dict[str, object] = {"family": trial.family, "trial": name, **trial.settings}
        row |= {"seeds": len(records[name]), "diverged": len(records.diverged.get(name, ()))}
        for measure in ("loss", "accuracy"):
            values = pd.Series(records.final(name, measure, split="validation"), dtype=float)
            row |= {measure: values.mean(), f"{measure}_se": values.sem()}
        rows.append(row)
    frame = pd.DataFrame(rows)
    measured = ["seeds", "diverged", "loss", "loss_se", "accuracy", "accuracy_se"]
    frame = frame[[*(name for name in frame if name not in measured), *measured]]
    best = [_best(frame, family, tuning) for family in tuning.families]
    edges = {name: tuning.at_edge(trials[name].family, trials[name].settings) for name in best}
    return frame.assign(
        chosen=frame["trial"].isin(best),
        at_edge=[" ".join(edges.get(name, ())) for name in frame["trial"]],
    )


def choose(study: Study, frame: pd.DataFrame, search_space: str) -> Choices:
    """What a frame of trials chooses.

    Args:
        study: The study that is tuned.
        frame: From `trial_frame`.
        search_space: Digest of the search space, under which the choice is valid.
    """
    tuning = tuning_of(study)
    trials = tuning.trials(study.methods)
    chosen = {row["family"]: row for row in frame[frame["chosen"]].to_dict(orient="records")}
    return Choices(
        search_space=search_space,
        seeds=tuning.seeds,
        families={
            family: Choice(
                settings=trials[row["trial"]].settings,
                loss=round(row["loss"], 6),
                standard_error=None if pd.isna(row["loss_se"]) else round(row["loss_se"], 6),
                trials=tuning.trials_per_family,
                at_edge=tuple(row["at_edge"].split()),
            )
            for family, row in chosen.items()
        },
        sides={
            side: min(families, key=lambda family: _rank(chosen[family], tuning))
            for side, families in tuning.sides.items()
        },
    )


def chosen_settings(choices: Choices) -> pd.DataFrame:
    """What was chosen, as a person reads it: a row a family."""
    return pd.DataFrame(
        [
            {
                "Family": family,
                "Chosen": in_words(choice.settings),
                "At the edge": ", ".join(map(own_name, choice.at_edge)) or "—",
                "Validation loss": _with_error(choice.loss, choice.standard_error),
                "Trials": choice.trials,
            }
            for family, choice in choices.families.items()
        ]
    )


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"


def _best(frame: pd.DataFrame, family: str, tuning: Tuning) -> str:
    """The name of a family's best trial; of equal ones the first."""
    own = frame[frame["family"] == family].set_index("trial")
    if (own["diverged"] > 0).all():
        raise InputError(
            f"tuning.families.{family}: every trial diverged at some tuning seed; lower its rates "
            "and run `swabench tune` again"
        )
    whole = own[own["seeds"] == len(tuning.seeds)].dropna(subset=["loss"])
    if whole.empty:
        raise InputError(
            f"tuning.families.{family}: no trial has a record at every tuning seed but such as "
            "diverged; run `swabench tune`"
        )
    ranks = {str(name): _rank(row.to_dict(), tuning) for name, row in whole.iterrows()}
    return min(ranks, key=lambda name: ranks[name])


def _rank(trial: Mapping[Any, Any], tuning: Tuning) -> tuple[float, ...]:
    """The lower, the better; a trial's row of the frame."""
    loss = float(trial["loss"])
    return (loss,) if tuning.chosen_by == "loss" else (-float(trial["accuracy"]), loss)
