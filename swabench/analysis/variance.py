"""How much each source of chance moves the results, where a study varies one at a time.

Deviations over the draws of a source, one source varied at a time (Bouthillier et al. 2021, arXiv
2103.03098), and, which is our own sum, the shares of their squares (variances): for every row of
the table, and for its difference to the reference, paired by seed, which is what a comparison is
made of.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from swabench.analysis.evidence import Values
from swabench.analysis.frame import Records
from swabench.analysis.words import what_was_run
from swabench.study.seeds import Source, source_of
from swabench.study.study import Study

RESULT = "result"
DIGITS = {"accuracy": 3, "loss": 5}
UNITS = {"accuracy": "points", "loss": "nats"}
INSTEAD = (
    "its seeds are not alike, so a mean over them says nothing about a method; "
    "sources.md has what each source of chance does"
)
"""Why such a study has no comparison and no claims."""


@dataclass(frozen=True)
class Deviation:
    """The standard deviation of some draws, in their unit.

    Attributes:
        draws: How many.
        mean: Their mean; NaN without any.
        deviation: With ddof = 1; NaN with fewer than two draws, as the next two.
        low: Lower end of its interval.
        high: Upper end of its interval.
    """

    draws: int
    mean: float
    deviation: float
    low: float
    high: float


def deviation_interval(values: ArrayLike, confidence: float) -> Deviation:
    """Estimate a standard deviation with its two-sided chi-square interval.

    The interval takes the values as drawn from a normal distribution; where their tails are
    heavier it is too short.

    Args:
        values: Independent draws, shape (n,), n >= 0.
        confidence: Coverage of the interval, between 0 and 1.

    Raises:
        ValueError: Values are not of one dimension or not finite, or the confidence is none.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not np.isfinite(sample).all():
        raise ValueError(f"values: expected finite numbers of one dimension, found {sample}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, found {confidence}")
    mean = float(sample.mean()) if sample.size else math.nan
    if sample.size < 2:
        return Deviation(sample.size, mean, math.nan, math.nan, math.nan)
    # A computed deviation of equal numbers need not be zero.
    deviation = 0.0 if np.ptp(sample) == 0 else float(sample.std(ddof=1))
    low, high = (deviation * factor for factor in interval_factors(sample.size, confidence))
    return Deviation(sample.size, mean, deviation, low, high)


def interval_factors(draws: int, confidence: float) -> tuple[float, float]:
    """The ends of the interval of a deviation, as multiples of it."""
    freedom = draws - 1
    quantiles = stats.chi2.ppf([(1 + confidence) / 2, (1 - confidence) / 2], freedom)
    low, high = np.sqrt(freedom / quantiles).tolist()
    return low, high


def variances(study: Study, records: Records) -> pd.DataFrame:
    """What each source does to each row's final test accuracy and loss.

    Args:
        study: A study that varies one source at a time.
        records: Those of its rows, from `collect`.

    Returns:
        One row a measure, quantity, method and source, the quantity being the method's result or
        its difference to the reference; then the fields of `Deviation` and `share`, that of the
        source in the summed variances of the row. A share is NaN where a source of the row has
        fewer than two draws, or nothing varies.
    """
    rows = []
    for measure in DIGITS:
        finals = {name: records.final(name, measure) for name in records}
        for quantity, name, values in _quantities(study, finals):
            place = {"measure": measure, "quantity": quantity, "method": name}
            rows += [{**place, **found} for found in _by_source(study, values)]
    return pd.DataFrame(rows)


def _quantities(study: Study, finals: Mapping[str, Values]) -> Iterator[tuple[str, str, Values]]:
    """What is looked at: each row's results, then its differences to the reference, by seed."""
    for name, values in finals.items():
        yield RESULT, name, values
    reference = finals[study.reference]
    for name, values in finals.items():
        if name != study.reference:
            gaps = {seed: values[seed] - reference[seed] for seed in values if seed in reference}
            yield f"difference_to_{study.reference}", name, gaps


def _by_source(study: Study, values: Values) -> list[dict[str, str | float]]:
    drawn = study.seed_draws
    found: dict[Source, Deviation] = {
        source: deviation_interval(
            [value for seed, value in values.items() if source_of(seed, drawn) == source],
            study.confidence,
        )
        for source in drawn
    }
    total = sum(each.deviation**2 for each in found.values())
    return [
        {
            "source": source,
            **asdict(each),
            "share": each.deviation**2 / total if total > 0 else math.nan,
        }
        for source, each in found.items()
    ]


def presentable(frame: pd.DataFrame, study: Study, measure: str) -> pd.DataFrame:
    """The sources of one measure as a person reads them: a line a row, a column a source."""
    own, digits = frame[frame["measure"] == measure], DIGITS[measure]
    heading = f"{UNITS[measure]} [{100 * study.confidence:g} %], share"
    lines = []
    for (quantity, method), of_row in own.groupby(["quantity", "method"], sort=False):
        label = method if quantity == RESULT else f"{method} less {study.reference}"
        cells = {f"{row['source']}, {heading}": _cell(row, digits) for _, row in of_row.iterrows()}
        fewest, most = of_row["draws"].min(), of_row["draws"].max()
        draws = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        lines.append({f"Test {measure} of": label, **cells, "Draws": draws})
    return pd.DataFrame(lines)


def _cell(row: "pd.Series[float]", digits: int) -> str:
    if math.isnan(row["deviation"]):
        return "—"
    low, high = row["low"], row["high"]
    found = f"{row['deviation']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    return found if math.isnan(row["share"]) else f"{found}, {100 * row['share']:.0f} %"


def findings(frame: pd.DataFrame, study: Study) -> list[str]:
    """Which source moves the test accuracy most, in plain sentences."""
    said = []
    accuracy = frame[(frame["measure"] == "accuracy") & frame["share"].notna()]
    for quantity, rows in accuracy.groupby("quantity", sort=False):
        # By source, the mean over the rows: each row counts alike, however much it varies.
        shares = rows.groupby("source")["share"].mean().sort_values(ascending=False, kind="stable")
        what = (
            "the rows' test accuracies"
            if quantity == RESULT
            else f"the differences to {study.reference}"
        )
        listed = ", ".join(f"{source} {100 * share:.0f} %" for source, share in shares.items())
        said.append(f"Shares in the summed variances of {what}, as means over rows: {listed}.")
    return said


def divergences(records: Records) -> list[str]:
    """A sentence for each run that diverged."""
    return [f"{line}, so it has no deviations." for line in records.divergences()]


def notes(frame: pd.DataFrame, study: Study) -> list[str]:
    """How the numbers are to be read."""
    draws = int(frame["draws"].max())
    percent = f"{100 * study.confidence:g} %"
    lines = [
        "Each source was drawn while the others were held at one draw. What they do together is "
        "not seen, so the sum of the variances is not the variance over draws of all of them.",
        "The test images were the same throughout; what others would do is no part of this.",
    ]
    if draws > 1:
        low, high = interval_factors(draws, study.confidence)
        lines.append(
            f"The {percent} intervals are chi-square intervals, for draws that are normally "
            f"distributed. With {draws} draws they reach from {low:.2f} to {high:.2f} times the "
            "deviation, so shares are rough."
        )
    return lines


def as_markdown(study: Study, frame: pd.DataFrame, lacking: str, lost: Sequence[str] = ()) -> str:
    """The sources' tables with how to read them, and which runs were `lost` to divergence."""
    shown = (presentable(frame, study, measure) for measure in DIGITS)
    tables = [table.to_markdown(index=False, disable_numparse=True) for table in shown]
    lines = _as_list([*lost, *findings(frame, study), *notes(frame, study)])
    intro = (
        "Standard deviation over the draws of each source, with its interval, and the source's "
        "share in the summed variances of the row."
    )
    heading = f"{study.title}. {what_was_run(study)}"
    parts = [heading, lacking, study.draws_in_words, intro, *tables, lines]
    return "\n\n".join(part for part in parts if part) + "\n"


def _as_list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
