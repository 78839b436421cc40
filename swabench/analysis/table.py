"""The comparison table, from records alone, by pandas."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from swabench.analysis.frame import Records
from swabench.analysis.statistics import (
    PairedComparison,
    compare_paired,
    holm,
    mean_interval,
    seeds_needed,
    sign_flip_seeds,
)
from swabench.study.study import Study
from swabench.training.measurement import Predictor

Standing = Literal["above", "below", "not distinguished"]

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
        seed. A row without records keeps its place, with zero seeds and no numbers.
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
                "seeds": len(found),
            }
            for name, found in records.items()
        ]
    ).astype({"paper_accuracy": float})


def presentable(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The table as a person reads it: rounded, intervals in brackets, `—` for nothing."""
    interval = f"[{100 * study.confidence:g} %]"
    difference = f"difference_to_{study.reference}"
    return pd.DataFrame(
        {
            "Method": frame["method"],
            f"Test accuracy, % {interval}": _with_interval(frame, "accuracy", "accuracy", 2),
            f"Test loss {interval}": _with_interval(frame, "loss", "loss", 4),
            "Paper, %": frame["paper_accuracy"].map(lambda value: _rounded(value, 2)),
            f"Difference to {study.reference}, points {interval}": _with_interval(
                frame, difference, "difference", 3, signed=True
            ),
            "Seeds": frame["seeds"],
        }
    )


def ensembles(study: Study, records: Records) -> pd.DataFrame:
    """One row a method with an ensemble: its average beside that of the same snapshots.

    Returns:
        Final test accuracies in percent and losses in nats of both, and the paired differences
        ensemble − average, each with its interval over seeds.
    """
    rows = []
    for name, found in records.items():
        if not records.final(name, "accuracy", "ensemble"):
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
        rows.append({**row, "seeds": len(found)})
    return pd.DataFrame(rows)


def presentable_ensembles(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The ensembles as a person reads them."""
    interval = f"[{100 * study.confidence:g} %]"
    shown = {
        f"Average, % {interval}": ("average_accuracy", 2, False),
        f"Ensemble, % {interval}": ("ensemble_accuracy", 2, False),
        f"Difference, points {interval}": ("accuracy_difference", 3, True),
        f"Average, loss {interval}": ("average_loss", 4, False),
        f"Ensemble, loss {interval}": ("ensemble_loss", 4, False),
        f"Difference, loss {interval}": ("loss_difference", 4, True),
    }
    columns = {
        title: _with_interval(frame, column, column, digits, signed)
        for title, (column, digits, signed) in shown.items()
    }
    return pd.DataFrame({"Method": frame["method"], **columns, "Seeds": frame["seeds"]})


def standings(study: Study, records: Records) -> dict[str, Standing]:
    """Where each other row stands to the reference, by the level of the study's rules.

    A row is above or below where the paired t test and the sign-flip test both say so, after
    Holm's correction of the larger p for the number of rows. Rows without pairs are left out.
    """
    compared = _against_reference(study, records)
    # One seed has no t test, only the sign-flip test's p of 1.
    p_values = holm([np.fmax(c.p_t, c.p_sign_flip) for c in compared.values()])
    found: dict[str, Standing] = {}
    for (name, each), p in zip(compared.items(), p_values, strict=True):
        if p > study.claims.alpha:
            found[name] = "not distinguished"
        else:
            found[name] = "above" if each.difference.mean > 0 else "below"
    return found


def not_distinguished(study: Study, records: Records) -> list[str]:
    """A line for each row not distinguished from the reference, with the seeds that would do."""
    rules = study.claims
    compared = _against_reference(study, records)
    lines = []
    for name, standing in standings(study, records).items():
        if standing != "not distinguished":
            continue
        found = compared[name].difference
        fewest = sign_flip_seeds(rules.alpha / len(compared))
        needed = seeds_needed(found.mean, found.deviation, rules.power, rules.alpha)
        gap = f"a difference of {found.mean:+.3f} points"
        if needed:
            outlook = (
                f"about {max(needed, fewest)} seeds would detect {gap} at {rules.power:.0%} power"
            )
        else:
            outlook = f"how many seeds would detect {gap} cannot be estimated"
        few = (
            f" ({found.n} seeds are too few for the sign-flip test, which needs {fewest} here)"
            if found.n < fewest
            else ""
        )
        lines.append(
            f"{name} is not distinguished from {study.reference} by {found.n} seeds after Holm's "
            f"correction{few}; {outlook}."
        )
    return lines


def _columns(name: str, values: Mapping[int, float], confidence: float) -> dict[str, float]:
    """The mean over seeds with its interval, as three columns; NaN without any seed."""
    columns = (name, f"{name}_low", f"{name}_high")
    if not values:
        return dict.fromkeys(columns, float("nan"))
    found = mean_interval(list(values.values()), confidence)
    return dict(zip(columns, (found.mean, found.low, found.high), strict=True))


def _difference(name: str, reference: str, records: Records, confidence: float) -> dict[str, float]:
    """Columns of the paired difference, over the seeds that both rows have."""
    pairs = _pairs(name, reference, records)
    columns = (f"difference_to_{reference}", "difference_low", "difference_high")
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


def _pairs(name: str, reference: str, records: Records) -> tuple[list[float], list[float]]:
    """Final accuracies of a row and of the reference, at the seeds that both have."""
    own, other = (records.final(run, "accuracy") for run in (name, reference))
    both = sorted(own.keys() & other.keys())
    return [own[seed] for seed in both], [other[seed] for seed in both]


def _with_interval(
    frame: pd.DataFrame, value: str, bounds: str, digits: int, signed: bool = False
) -> "pd.Series[str]":
    rows = zip(frame[value], frame[f"{bounds}_low"], frame[f"{bounds}_high"], strict=True)
    return pd.Series(
        [
            _rounded(mean, digits, signed)
            if pd.isna(low)
            else f"{_rounded(mean, digits, signed)} "
            f"[{_rounded(low, digits, signed)}, {_rounded(high, digits, signed)}]"
            for mean, low, high in rows
        ],
        index=frame.index,
    )


def _rounded(value: float, digits: int, signed: bool = False) -> str:
    return "—" if pd.isna(value) else f"{value:{'+' if signed else ''}.{digits}f}"


def as_csv(frame: pd.DataFrame) -> str:
    """A table for programs: six decimals, one row a line."""
    return str(frame.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def as_markdown(
    study: Study,
    shown: pd.DataFrame,
    ensembles: pd.DataFrame,
    lacking: str,
    undecided: Sequence[str],
) -> str:
    """The comparison with the ensembles beside it, for a README."""
    parts = [study.title, lacking, shown.to_markdown(index=False, disable_numparse=True)]
    parts.append("\n".join(f"- {line}" for line in undecided))
    if len(ensembles):
        beside = presentable_ensembles(ensembles, study)
        parts.append("The average, and the ensemble of the same snapshots, on the test images:")
        parts.append(beside.to_markdown(index=False, disable_numparse=True))
    return "\n\n".join(part for part in parts if part) + "\n"


def as_latex(study: Study, shown: pd.DataFrame, lacking: str) -> str:
    """The comparison for a paper (booktabs)."""
    escaped = shown.rename(columns=lambda name: name.replace("%", r"\%"))
    escaped = escaped.map(lambda value: str(value).replace("—", "---"))
    caption = re.sub(r"([%_&#$])", r"\\\1", f"{study.title}. {lacking}".strip())
    return str(escaped.to_latex(index=False, caption=caption))
