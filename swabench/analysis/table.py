"""The comparison table, from records alone, by pandas."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from swabench.analysis.frame import Records
from swabench.analysis.statistics import (
    PairedComparison,
    compare_paired,
    detectable_difference,
    holm,
    mean_interval,
)
from swabench.analysis.words import what_was_run
from swabench.study.schedules import Constant
from swabench.study.study import Study
from swabench.training.measurement import Predictor

Standing = Literal["above", "below", "not distinguished"]

DIGITS = "%.9g"
"""Of what is measured, so that what follows from it can be computed again to the printed digit."""

PREDICTORS: tuple[Predictor, Predictor] = ("average", "ensemble")
"""The two ways of making one prediction of several snapshots."""


def comparison(study: Study, records: Records) -> pd.DataFrame:
    """One row a method, in the paper's order: the method's final result on the test images.

    Args:
        study: The study.
        records: Its records, from `collect`.

    Returns:
        Accuracies and their differences in percent and percentage points, losses in nats;
        intervals are t intervals over seeds at the study's confidence, differences paired by
        seed. A row without records keeps its place, with zero seeds and no numbers; so does one
        that diverged at some seed, with how many these are.
    """
    reference = study.reference
    return pd.DataFrame(
        [
            {
                "method": name,
                "title": study.row_method(name).title,
                **_columns("accuracy", records.final(name, "accuracy"), study.confidence),
                **_columns("loss", records.final(name, "loss"), study.confidence),
                "paper_accuracy": study.row_method(name).paper_accuracy,
                **_difference(name, reference, records, study.confidence),
                **_difference(name, reference, records, study.confidence, "loss"),
                **_seeds(name, records),
            }
            for name in records
        ]
    ).astype({"paper_accuracy": float})


def presentable(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The table as a person reads it: rounded, intervals in brackets, `—` for nothing."""
    interval = f"[{100 * study.confidence:g} %]"
    difference = f"difference_to_{study.reference}"
    columns = {
        "Method": frame["method"],
        f"Test accuracy, % {interval}": _with_interval(frame, "accuracy", "accuracy", 2),
        f"Test loss {interval}": _with_interval(frame, "loss", "loss", 4),
        "Paper, %": frame["paper_accuracy"].map(lambda value: _rounded(value, 2)),
        f"Difference to {study.reference}, points {interval}": _with_interval(
            frame, difference, "difference", 3, signed=True
        ),
        f"Difference in loss {interval}": _with_interval(
            frame, f"loss_{difference}", "loss_difference", 4, signed=True
        ),
        "Seeds": frame["seeds"],
    }
    if frame["paper_accuracy"].isna().all():  # the paper's column belongs to the paper's study
        del columns["Paper, %"]
    return pd.DataFrame(columns)


def ensembles(study: Study, records: Records) -> pd.DataFrame:
    """One row a method with an ensemble: its average beside that of the same snapshots.

    Returns:
        Final test accuracies in percent and losses in nats of both, and the paired differences
        ensemble − average, each with its interval over seeds. A row that diverged at some seed
        has its place and no numbers.
    """
    rows = []
    for name in records:
        if records.course(name, "accuracy", "ensemble").empty:
            continue
        row: dict[str, str | float] = {"method": name, "title": study.row_method(name).title}
        for measure in ("accuracy", "loss"):
            average, ensemble = (records.final(name, measure, p) for p in PREDICTORS)
            gaps = {seed: ensemble[seed] - average[seed] for seed in ensemble}
            for label, values in (
                (f"average_{measure}", average),
                (f"ensemble_{measure}", ensemble),
                (f"{measure}_difference", gaps),
            ):
                row |= _columns(label, values, study.confidence)
        rows.append({**row, **_seeds(name, records)})
    return pd.DataFrame(rows)


def presentable_ensembles(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The ensembles as a person reads them."""
    columns = _titled(
        frame,
        study,
        {
            "Average, %": "average_accuracy",
            "Ensemble, %": "ensemble_accuracy",
            "Difference, points": "accuracy_difference",
            "Average, loss": "average_loss",
            "Ensemble, loss": "ensemble_loss",
            "Difference, loss": "loss_difference",
        },
    )
    return pd.DataFrame({"Method": frame["method"], **columns, "Seeds": frame["seeds"]})


def on_one_trajectory(study: Study, records: Records) -> pd.DataFrame:
    """One row a run that averages: its average less the iterate of the same trajectory.

    The cleanest measure of what averaging does: both have the same rates, data and weights.

    Returns:
        The constant rate (NaN for another schedule), final test accuracies in percent and losses
        in nats of both, and the paired differences with their intervals, by rate where it is one.
        A run that diverged at some seed has its place and no numbers.
    """
    rows = []
    for name in records:
        method, lost = study.row_method(name), name in records.diverged
        if not method.averaging or (records.course(name, "loss", "average").empty and not lost):
            continue
        rate = method.rate.learning_rate if isinstance(method.rate, Constant) else np.nan
        row: dict[str, str | float] = {"method": name, "rate": rate}
        for measure in ("accuracy", "loss"):
            average, iterate = (records.final(name, measure, p) for p in ("average", "iterate"))
            gaps = {seed: average[seed] - iterate[seed] for seed in average}
            row |= _columns(f"average_{measure}", average, study.confidence)
            row |= _columns(f"iterate_{measure}", iterate, study.confidence)
            row |= _columns(f"{measure}_difference", gaps, study.confidence)
        rows.append({**row, **_seeds(name, records)})
    return pd.DataFrame(rows)


def presentable_trajectories(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Average less iterate as a person reads it: constant rates from the lowest, then others."""
    frame = frame.sort_values("rate", kind="stable", na_position="last")
    columns = _titled(
        frame,
        study,
        {
            "Iterate, %": "iterate_accuracy",
            "Average, %": "average_accuracy",
            "Average − iterate, points": "accuracy_difference",
            "Average − iterate, loss": "loss_difference",
        },
    )
    rates = frame["rate"].map(lambda rate: "—" if pd.isna(rate) else f"{rate:g}")
    return pd.DataFrame(
        {"Run": frame["method"], "Rate": rates, **columns, "Seeds": frame["seeds"]}
    ).reset_index(drop=True)


def standings(study: Study, records: Records) -> dict[str, Standing]:
    """Where each other row stands to the reference, by the level of the study's rules.

    The paired t test decides, after Holm's correction for the number of rows. Rows without pairs
    are left out.
    """
    compared = _against_reference(study, records)
    # One seed has no t test, and proves nothing.
    p_values = holm([1.0 if np.isnan(c.p_t) else c.p_t for c in compared.values()])
    found: dict[str, Standing] = {}
    for (name, each), p in zip(compared.items(), p_values, strict=True):
        if p > study.claims.alpha:
            found[name] = "not distinguished"
        else:
            found[name] = "above" if each.difference.mean > 0 else "below"
    return found


def not_distinguished(study: Study, records: Records) -> list[str]:
    """A line for each row not distinguished from the reference, with what could be detected."""
    rules = study.claims
    compared = _against_reference(study, records)
    lines = []
    for name, standing in standings(study, records).items():
        if standing != "not distinguished":
            continue
        found = compared[name].difference
        line = (
            f"{name} is not distinguished from {study.reference} by {found.n} seeds after Holm's "
            f"correction ({found.mean:+.3f} points)"
        )
        level = rules.alpha / len(compared)
        detects = detectable_difference(found.deviation, found.n, rules.power, level)
        if not np.isnan(detects):
            line += (
                f"; with {found.n} seeds and their spread, {detects:.3f} points would be found "
                f"with {rules.power:.0%} power"
            )
        lines.append(f"{line}.")
    return lines


def divergences(study: Study, records: Records) -> list[str]:
    """A line for each run that diverged, with what is not decided for it."""
    lines = []
    for name, line in zip(records.diverged, records.divergences(), strict=True):
        line += ", so it has no mean"
        if name == study.reference:
            line += ", and no difference to it is decided"
        elif name in study.row_names:
            line += f", and its difference to {study.reference} is not decided"
        lines.append(f"{line}.")
    return lines


def _seeds(name: str, records: Records) -> dict[str, int]:
    """How many seeds a run has, and at how many of them it diverged."""
    return {"seeds": len(records[name]), "diverged": len(records.diverged.get(name, ()))}


def _columns(name: str, values: Mapping[int, float], confidence: float) -> dict[str, float]:
    """The mean over seeds with its interval, as three columns; NaN without any seed."""
    columns = (name, f"{name}_low", f"{name}_high")
    if not values:
        return dict.fromkeys(columns, float("nan"))
    found = mean_interval(list(values.values()), confidence)
    return dict(zip(columns, (found.mean, found.low, found.high), strict=True))


def _difference(
    name: str, reference: str, records: Records, confidence: float, measure: str = "accuracy"
) -> dict[str, float]:
    """Columns of the paired difference, over the seeds that both rows have."""
    pairs = _pairs(name, reference, records, measure)
    of = "loss_" if measure == "loss" else ""
    names = (f"difference_to_{reference}", "difference_low", "difference_high")
    columns = [f"{of}{name}" for name in names]
    if name == reference or not pairs[0]:
        return dict.fromkeys(columns, float("nan"))
    found = mean_interval([a - b for a, b in zip(*pairs, strict=True)], confidence)
    return dict(zip(columns, (found.mean, found.low, found.high), strict=True))


def _against_reference(study: Study, records: Records) -> dict[str, PairedComparison]:
    """Every other row's final accuracies against the reference's, where there are pairs."""
    rng = np.random.default_rng(study.claims.sign_flip_seed)
    every = {name: _pairs(name, study.reference, records) for name in records}
    return {
        name: compare_paired(*pairs, rng=rng)
        for name, pairs in every.items()
        if name != study.reference and pairs[0]
    }


def _pairs(
    name: str, reference: str, records: Records, measure: str = "accuracy"
) -> tuple[list[float], list[float]]:
    """Final measurements of a row and of the reference, at the seeds that both have."""
    own, other = (records.final(run, measure) for run in (name, reference))
    both = sorted(own.keys() & other.keys())
    return [own[seed] for seed in both], [other[seed] for seed in both]


def _titled(
    frame: pd.DataFrame, study: Study, columns: Mapping[str, str]
) -> dict[str, "pd.Series[str]"]:
    """Columns with their intervals by title; a difference is signed, and has a digit more."""
    found = {}
    for title, column in columns.items():
        signed = column.endswith("_difference")
        digits = 4 if "loss" in column else 3 if signed else 2
        shown = _with_interval(frame, column, column, digits, signed)
        found[f"{title} [{100 * study.confidence:g} %]"] = shown
    return found


def _with_interval(
    frame: pd.DataFrame, value: str, bounds: str, digits: int, signed: bool = False
) -> "pd.Series[str]":
    """A column with its interval as text; where a row diverged, that in place of its numbers."""
    rows = zip(frame[value], frame[f"{bounds}_low"], frame[f"{bounds}_high"], strict=True)
    shown = pd.Series(
        [
            _rounded(mean, digits, signed)
            if pd.isna(low)
            else f"{_rounded(mean, digits, signed)} "
            f"[{_rounded(low, digits, signed)}, {_rounded(high, digits, signed)}]"
            for mean, low, high in rows
        ],
        index=frame.index,
        dtype=object,
    )
    counts = zip(frame["diverged"], frame["seeds"], strict=True)
    lost = pd.Series([f"diverged ({few} of {seeds})" for few, seeds in counts], frame.index)
    return shown if signed else shown.mask(frame["diverged"] > 0, lost)


def _rounded(value: float, digits: int, signed: bool = False) -> str:
    return "—" if pd.isna(value) else f"{value:{'+' if signed else ''}.{digits}f}"


def as_csv(frame: pd.DataFrame, float_format: str = "%.6f") -> str:
    """A table for programs: six decimals, one row a line."""
    return str(frame.to_csv(index=False, float_format=float_format, lineterminator="\n"))


def as_markdown(
    study: Study,
    shown: pd.DataFrame,
    trajectories: pd.DataFrame,
    ensembles: pd.DataFrame,
    lacking: str,
    notes: Sequence[str],
) -> str:
    """The comparison, with average less iterate and the ensembles beside it, for a README."""
    parts = [
        f"{study.title}. {what_was_run(study)}",
        lacking,
        shown.to_markdown(index=False, disable_numparse=True),
    ]
    parts.append(study.draws_in_words)
    parts.append("\n".join(f"- {line}" for line in notes))
    if len(trajectories):
        beside = presentable_trajectories(trajectories, study)
        parts.append("The average less the iterate of the same trajectory, on the test images:")
        parts.append(beside.to_markdown(index=False, disable_numparse=True))
    if len(ensembles):
        beside = presentable_ensembles(ensembles, study)
        parts.append("The average, and the ensemble of the same snapshots, on the test images:")
        parts.append(beside.to_markdown(index=False, disable_numparse=True))
    return "\n\n".join(part for part in parts if part) + "\n"


def as_latex(study: Study, shown: pd.DataFrame, lacking: str) -> str:
    """The comparison for a paper (booktabs)."""
    dashes = shown.map(lambda value: str(value).replace("—", "---"))
    caption = f"{study.title}. {lacking}".strip().translate(_AS_TEXT)
    return str(dashes.to_latex(index=False, escape=True, caption=caption))


# pandas escapes cells and leaves captions. Whatever LaTeX would obey in a title is text there.
_AS_TEXT = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{sign: f"\\{sign}" for sign in "%_&#${}"},
    }
)
