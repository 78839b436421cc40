"""Every number of the committed results again, from their csv files, by pandas and scipy alone.

Nothing of swabench is imported here: what its tables and claims say must follow from what is
published beside them, to the printed digit.
"""

import itertools
import json
import math
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("mnist", "mnist-tuned", "network", "layer4", "transfer")
STUDIES = [ROOT / "results" / name for name in NAMES]
SIX_DECIMALS, NINE_DIGITS = 1e-6, 2e-3  # of a p-value of tiny differences three digits are left


def by_seed(frame: pd.DataFrame, column: str) -> pd.Series:
    """A column by seed."""
    return pd.Series(frame[column].to_numpy(), index=frame["seed"].to_numpy()).sort_index()


class Published:
    """A study's committed files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study = json.loads((folder / "manifest.json").read_text())["study"]
        self.rules = self.study["claims"]
        self.alpha = float(self.rules["alpha"])
        self.confidence = float(self.study["confidence"])

    def read(self, name: str) -> pd.DataFrame:
        path = self.folder / name
        return pd.read_csv(path) if path.is_file() else pd.DataFrame()

    @cached_property
    def metrics(self) -> pd.DataFrame:
        found = self.read("metrics.csv")
        return found[found["batchnorm"] != "running"]

    def final(
        self, run: str, measure: str, predictor: str | None, split: str = "test"
    ) -> pd.Series:
        own = self.metrics[(self.metrics["method"] == run) & (self.metrics["split"] == split)]
        predictor = predictor or self.result(run)
        own = own[own["predictor"] == predictor]
        last = own[own["epoch"] == own["epoch"].max()]
        return by_seed(last, measure)

    def result(self, run: str) -> str:
        own = self.metrics[self.metrics["method"] == run]
        return "average" if (own["predictor"] == "average").any() else "iterate"

    def values(self, run: str, quantity: str, predictor: str | None) -> pd.Series:
        """A quantity of a run at every seed, whichever file it lies in."""
        if quantity in ("test accuracy", "test loss"):
            return self.final(run, quantity.removeprefix("test "), predictor)
        if quantity.startswith("swing of the test "):
            measure = quantity.rsplit(" ", 1)[1]
            own = self.metrics[
                (self.metrics["method"] == run)
                & (self.metrics["split"] == "test")
                & (self.metrics["predictor"] == (predictor or self.result(run)))
                & (
                    self.metrics["epoch"]
                    >= math.floor(self.rules["transient"] * self.study["finetune"]["epochs"])
                )
            ]
            courses = own.sort_values("epoch").groupby("seed")[measure]
            return pd.Series({s: course.diff().std(ddof=1) for s, course in courses})
        if quantity.startswith("log of the "):
            flat = self.read("flatness.csv")
            own = flat[
                (flat["measure"] == quantity.removeprefix("log of the ")) & (flat["method"] == run)
            ]
            with np.errstate(invalid="ignore"):  # where the loss falls, there is no logarithm
                return pd.Series(np.log(by_seed(own, "value")))
        found = self.read("predictions.csv")
        own = found[
            (found["measure"] == quantity)
            & (found["method"] == run)
            & (found["predictor"] == (predictor or self.result(run)))
        ]
        return by_seed(own, "value")

    # --- the rate sweep ----------------------------------------------------------------

    def swept(self, method: str) -> dict[float, str]:
        """The run of a method at each rate of the sweep."""
        rates = self.study["rate_sweep"]["rates"]
        own = self.study["methods"][method]["rate"]["learning_rate"]
        others = self.study["methods"].items()
        found = {}
        for rate in rates:
            name = f"{method}-rate-{rate:g}"
            known = (self.metrics["method"] == name).any()
            same = [n for n, m in others if n == method and rate == own]
            found[rate] = name if known else same[0]
        return found

    def best_rates(self, method: str) -> dict[int, float]:
        scores = pd.DataFrame(
            {
                rate: self.final(run, "accuracy", None, "validation")
                for rate, run in self.swept(method).items()
            }
        )
        return {seed: float(scores.drop(seed).mean().idxmax()) for seed in scores.index}

    def at(self, method: str, rates: Mapping[int, float]) -> pd.Series:
        runs = self.swept(method)
        return pd.Series(
            {seed: self.final(runs[rate], "accuracy", None)[seed] for seed, rate in rates.items()}
        )

    def sides(self, comparison: str, quantity: str) -> tuple[pd.Series, pd.Series]:
        """Both sides of a comparison, from its words."""
        if at := re.fullmatch(r"(.+): at (.+)'s best rate − at its own", comparison):
            return self.at(at[1], self.best_rates(at[2])), self.at(at[1], self.best_rates(at[1]))
        if at := re.fullmatch(r"(.+): at (.+) − at its best rate", comparison):
            best = self.best_rates(at[1])
            return self.at(at[1], dict.fromkeys(best, float(at[2]))), self.at(at[1], best)
        if own := re.fullmatch(r"(.+): (\w+) − (\w+)", comparison):
            return tuple(self.values(own[1], quantity, p) for p in (own[2], own[3]))  # type: ignore[return-value]
        sides = []
        for side in comparison.split(" − "):
            run, _, predictor = side.partition("'s ")
            sides.append(self.values(run, quantity, predictor or None))
        return sides[0], sides[1]


@pytest.fixture(params=STUDIES, ids=lambda path: path.name)
def published(request: pytest.FixtureRequest) -> Published:
    return Published(request.param)


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    return float(found.low), float(found.high)


def near(found: object, expected: float) -> bool:
    value = math.nan if found is None else float(found)  # type: ignore[arg-type]
    if math.isnan(expected) or math.isnan(value):
        return math.isnan(expected) == math.isnan(value)
    return abs(value - expected) <= SIX_DECIMALS


def close(found: object, expected: float) -> bool:
    """As `near`, of what was written with nine digits."""
    value = math.nan if found is None else float(found)  # type: ignore[arg-type]
    if math.isnan(expected) or math.isnan(value):
        return math.isnan(expected) == math.isnan(value)
    return math.isclose(value, expected, rel_tol=NINE_DIGITS, abs_tol=1e-9)


def test_the_table(published: Published) -> None:
    reference = published.study["reference"]
    table = published.read("table.csv").set_index("method")
    assert list(table.index) == [
        published.study["pretrain"]["name"], *published.study["methods"]
    ]  # fmt: skip
    for name, row in table.iterrows():
        for measure, difference, prefix in (
            ("accuracy", f"difference_to_{reference}", ""),
            ("loss", f"loss_difference_to_{reference}", "loss_"),
        ):
            own = published.final(str(name), measure, None)
            other = published.final(reference, measure, None)
            assert near(row[measure], own.mean())
            low, high = interval(own.to_numpy(), published.confidence)
            assert near(row[f"{measure}_low"], low)
            assert near(row[f"{measure}_high"], high)
            if name == reference:
                continue
            gaps = (own - other).to_numpy()
            low, high = interval(gaps, published.confidence)
            assert near(row[difference], gaps.mean())
            assert near(row[f"{prefix}difference_low"], low)
            assert near(row[f"{prefix}difference_high"], high)
        assert row["seeds"] == len(own)


def test_average_less_iterate(published: Published) -> None:
    table = published.read("trajectories.csv").set_index("method")
    averaging = published.metrics[published.metrics["predictor"] == "average"]["method"].unique()
    assert set(table.index) == set(averaging)
    for name, row in table.iterrows():
        for measure in ("accuracy", "loss"):
            sides = [published.final(str(name), measure, p) for p in ("average", "iterate")]
            gaps = (sides[0] - sides[1]).to_numpy()
            low, high = interval(gaps, published.confidence)
            assert near(row[f"average_{measure}"], sides[0].mean())
            assert near(row[f"iterate_{measure}"], sides[1].mean())
            assert near(row[f"{measure}_difference"], gaps.mean())
            assert near(row[f"{measure}_difference_low"], low)
            assert near(row[f"{measure}_difference_high"], high)


def sign_flip(d: np.ndarray) -> float:
    signs = np.array(list(itertools.product((1, -1), repeat=len(d))))
    means = np.abs(signs @ d)
    return float(np.mean(means >= abs(d.sum()) - 1e-9 * len(d) * np.abs(d).max()))


def raw_p_values(d: np.ndarray, margin: float) -> dict[str, float]:
    """Of no difference, of one within the margin, and of one beyond it."""
    if np.ptp(d) == 0:
        zero = 1.0 if d[0] == 0 else 0.0
        within, beyond = float(abs(d[0]) >= margin), float(abs(d[0]) <= margin)
        return {"p_difference": zero, "p_equal": within, "p_beyond": beyond}
    n, mean = len(d), d.mean()
    error = d.std(ddof=1) / math.sqrt(n)

    def above(threshold: float) -> float:
        return float(stats.t.sf((mean - threshold) / error, n - 1))

    def below(threshold: float) -> float:
        return float(stats.t.cdf((mean - threshold) / error, n - 1))

    return {
        "p_difference": 2 * min(above(0), below(0)),
        "p_equal": max(above(-margin), below(margin)),
        "p_beyond": min(1.0, 2 * min(above(margin), below(-margin))),
    }


def holm(p_values: list[float]) -> list[float]:
    order, m, running = np.argsort(p_values, kind="stable"), len(p_values), 0.0
    found = [0.0] * m
    for rank, place in enumerate(order):
        running = max(running, (m - rank) * p_values[place])
        found[place] = min(1.0, running)
    return found


def detectable(d: np.ndarray, level: float, power: float) -> float:
    n = len(d)
    critical = stats.t.isf(level / 2, n - 1)

    def lacking(effect: float) -> float:
        return float(stats.nct.sf(critical, n - 1, effect * math.sqrt(n))) - power

    return float(d.std(ddof=1) * optimize.brentq(lacking, 0, 100))


def words(row: pd.Series, p: Mapping[str, float], mean: float, alpha: float) -> str:
    """The finding, from its p-values."""
    measure, unit = row["measure"], row["unit"] if isinstance(row["unit"], str) else ""
    good, bad = "better", "worse"
    lower_is_good = measure != "test accuracy" and not measure.startswith("test images")
    for start, pair in (
        ("swing", ("steadier", "less steady")), ("log of", ("flatter", "sharper")),
        ("divergence", ("nearer", "farther")), ("variance", ("lower", "higher")),
    ):  # fmt: skip
        if measure.startswith(start):
            good, bad = pair
    margin = f"{row['margin']:g} {unit}".strip() if not pd.isna(row["margin"]) else ""
    equal, beyond = bool(margin) and p["p_equal"] <= alpha, bool(margin) and p["p_beyond"] <= alpha
    if p["p_difference"] > alpha:
        return f"equal within ±{margin}" if equal else "open"
    word = good if (mean < 0) == lower_is_good else bad
    if beyond:
        return f"{word}, by more than {margin}"
    if equal:
        return f"{word}, by less than {margin}"
    return f"{word}; whether by more than {margin} is open" if margin else word


def test_the_claims(published: Published) -> None:
    claims = published.read("claims.csv")
    alpha, power = published.alpha, float(published.rules["power"])
    for key, of_claim in claims.groupby("claim", sort=False):
        rows = of_claim[of_claim["comparison"].notna()]
        differences, corrected = {}, {}
        for place, row in rows.iterrows():
            a, b = published.sides(row["comparison"], row["measure"])
            d = (a - b).dropna().to_numpy()
            differences[place] = d
            corrected[place] = raw_p_values(d, row["margin"]) if len(d) > 1 else {}
            assert int(row["seeds"]) == len(d), (key, row["comparison"])
            assert close(row["difference"], d.mean()), (key, row["comparison"], d.mean())
            if len(d) > 1:
                low, high = interval(d, published.confidence)
                assert close(row["low"], low)
                assert close(row["high"], high)
                assert close(row["p_t"], corrected[place]["p_difference"])
            if len(d) <= 16:
                assert close(row["p_sign_flip"], sign_flip(d))
        deciding = [place for place, row in rows.iterrows() if row["decides"] in (True, "True")]
        for name in ("p_difference", "p_equal", "p_beyond"):
            values = [corrected[place].get(name, math.nan) for place in deciding]
            if not np.isnan(values).any():
                for place, value in zip(deciding, holm(values), strict=True):
                    corrected[place][name] = value
        for place, row in rows.iterrows():
            d, p = differences[place], corrected[place]
            if len(d) < 2:
                continue
            for name, value in p.items():
                if name == "p_difference" or not pd.isna(row["margin"]):
                    assert close(row[name], value), (key, row["comparison"], name)
            level = alpha / len(deciding) if place in deciding else alpha
            expected = detectable(d, level, power) if np.ptp(d) else 0.0
            assert close(row["detectable"], expected), (key, row["comparison"], row["measure"])
            assert row["finding"] == words(row, p, d.mean(), alpha), (key, row["comparison"])


def test_the_verdicts(published: Published) -> None:
    """From the findings: all that decide must say what the claim says."""
    for key, rows in published.read("claims.csv").groupby("claim"):
        deciding = rows[rows["decides"].isin([True, "True"])]
        if deciding.empty:
            continue
        said = []
        for _, row in deciding.iterrows():
            finding = row["finding"]
            word = re.split("[,;]", finding)[0]
            good = word in ("better", "steadier", "flatter", "lower", "nearer")
            bad = word in ("worse", "less steady", "sharper", "higher", "farther")
            beyond = ", by more than" in finding
            equal = finding.startswith("equal") or ", by less than" in finding
            if row["test"] == "better":
                said.append("for" if good else "against" if bad else "equal" if equal else "open")
            elif row["test"] == "equal":
                said.append("for" if equal else "against" if beyond else "open")
            else:
                said.append("for" if bad and beyond else "against" if equal or good else "open")
        expected = "open"
        if "against" in said:
            expected = "contradicted"
        elif all(word == "for" for word in said):
            expected = "supported"
        elif all(word == "equal" for word in said):
            expected = "equal"
        if key == "C7" and expected == "supported":
            sgd, swa = (published.best_rates(published.rules[part]) for part in ("sgd", "swa"))
            expected = "supported" if all(swa[seed] > sgd[seed] for seed in sgd) else "open"
        if key == "C7" and expected == "contradicted":
            sgd, swa = (published.best_rates(published.rules[part]) for part in ("sgd", "swa"))
            highest = max(published.study["rate_sweep"]["rates"])
            if any(sgd[seed] == swa[seed] == highest for seed in sgd):
                expected = "open"
        assert set(rows["verdict"]) == {expected}, (key, said)


def test_the_intervals_over_images(published: Published) -> None:
    pairs = published.read("pairs.csv")
    claims = published.read("claims.csv")
    checked = 0
    for _, row in claims[claims["low_over_images"].notna()].iterrows():
        run, other = row["comparison"].split(" − ")
        measure = row["measure"].removeprefix("test ")
        (place,) = np.flatnonzero(
            (pairs["method"] == run) & (pairs["other"] == other) & (pairs["measure"] == measure)
        )
        found = pairs.iloc[place]
        s, n = int(found["seeds"]), int(found["images"])
        parts = [(found["ms_seeds"], s - 1)]
        if found["ms_images"] > found["ms_residual"]:
            parts += [(found["ms_images"], n - 1), (-found["ms_residual"], (s - 1) * (n - 1))]
        square = sum(part for part, _ in parts)
        drawn = sum(part**2 / df for part, df in parts)
        freedom = min(s - 1, max(1, square**2 / drawn)) if drawn else s - 1  # equal results
        tail = (1 + published.confidence) / 2
        reach = stats.t.ppf(tail, freedom) * math.sqrt(square / (s * n))
        for column, expected in (
            ("low_over_images", found["mean"] - reach),
            ("high_over_images", found["mean"] + reach),
        ):
            # Mean squares that cancel leave less than their nine digits.
            assert row[column] == pytest.approx(expected, rel=1e-6, abs=1e-8)
        assert row["difference"] == pytest.approx(found["mean"], abs=1e-4)
        checked += 1
    assert checked


def test_mcnemar(published: Published) -> None:
    counts = published.read("mcnemar.csv")
    claims = published.read("claims.csv")
    for _, row in claims[
        (claims["measure"] == "test accuracy") & claims["decides"].notna()
    ].iterrows():
        pair = row["comparison"].split(" − ")
        own = counts[(counts["method"] == pair[0]) & (counts["other"] == pair[-1])]
        if own.empty or row["decides"] not in (True, "True"):
            continue
        telling = []
        for seed, a, b in zip(own["seed"], own["only_method"], own["only_other"], strict=True):
            n, fewer = a + b, min(a, b)
            exact = stats.binomtest(int(fewer), int(n)).pvalue if n else 1.0
            mid = min(1.0, exact - stats.binom.pmf(fewer, n, 0.5)) if n else 1.0
            if a == b:
                mid = 1.0
            if mid <= published.alpha:
                telling.append(str(seed))
        found = row["mcnemar_seeds"]
        assert ("" if pd.isna(found) else str(found)).replace(".0", "") == " ".join(telling)


def test_the_markdown_says_what_the_csv_says(published: Published) -> None:
    """Every mean of the table as it is printed."""
    text = (published.folder / "table.md").read_text()
    for _, row in published.read("table.csv").iterrows():
        line = next(line for line in text.splitlines() if line.startswith(f"| {row['method']} "))
        for measure, digits in (("accuracy", 2), ("loss", 4)):
            number = rf"(\d+\.\d{{{digits}}})"
            shown = re.search(rf"\| {number} \[{number}, {number}\]", line)
            assert shown is not None
            for found, name in zip(shown.groups(), ("", "_low", "_high"), strict=True):
                # Half a digit, and what six decimals lose.
                assert abs(float(found) - row[f"{measure}{name}"]) <= 0.5 * 10**-digits + 1e-6


def test_the_claims_page_says_what_the_csv_says(published: Published) -> None:
    """The verdict of every claim, and of every comparison its seeds, its finding and its mean."""
    text = (published.folder / "claims.md").read_text()
    claims = published.read("claims.csv")
    sections = dict(re.findall(r"^## (\w+): .*?\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    assert list(sections) == list(dict.fromkeys(claims["claim"]))
    for key, rows in claims.groupby("claim"):
        (verdict,) = rows["verdict"].unique()
        assert sections[str(key)].lstrip().startswith(f"**{verdict}")
        for _, row in rows[rows["comparison"].notna()].iterrows():
            lines = (
                [cell.strip() for cell in line.strip("|").split("|")]
                for line in sections[str(key)].splitlines()
                if line.startswith("| ")
            )
            (cells,) = (c for c in lines if c[:2] == [row["comparison"], row["measure"]])
            assert cells[3:5] == [str(int(row["seeds"])), row["finding"]]
            mean = cells[2].split(" ")[0]
            digits = len(mean.partition(".")[2])
            assert abs(float(mean) - row["difference"]) <= 0.5 * 10**-digits + 1e-9


def test_the_sources_of_chance() -> None:
    """Of `mnist-sources`: deviations, their chi-square intervals and shares, from the metrics."""
    published = Published(ROOT / "results" / "mnist-sources")
    sources, reference = published.study["seed_draws"], published.study["reference"]
    shown = published.read("sources.csv")
    for key, rows in shown.groupby(["measure", "quantity", "method"]):
        measure, quantity, method = map(str, key)
        values = published.final(method, measure, None)
        if quantity != "result":
            values -= published.final(reference, measure, None)
        # Seeds draw the sources by turns.
        drawn = {s: values[values.index % len(sources) == k] for k, s in enumerate(sources)}
        total = sum(own.var() for own in drawn.values())
        assert list(rows["source"]) == sources
        for _, row in rows.iterrows():
            own = drawn[row["source"]]
            tails = (1 + published.confidence) / 2, (1 - published.confidence) / 2
            low, high = (
                own.std() * math.sqrt((len(own) - 1) / stats.chi2.ppf(tail, len(own) - 1))
                for tail in tails
            )
            expected = (len(own), own.mean(), own.std(), low, high, own.var() / total)
            columns = ("draws", "mean", "deviation", "low", "high", "share")
            for column, value in zip(columns, expected, strict=True):
                assert row[column] == pytest.approx(value, rel=1e-4, abs=1e-6), (method, column)


@pytest.mark.parametrize("study", ["mnist", "network"])
def test_the_readme_shows_the_committed_table(study: str) -> None:
    readme = (ROOT / "README.md").read_text()
    table = (ROOT / "results" / study / "table.md").read_text()

    def rows(text: str) -> set[tuple[str, ...]]:
        lines = (line for line in text.splitlines() if line.startswith("| "))
        return {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines}

    first = table.split("\n\n")[1]
    assert rows(first) <= rows(readme)


def test_the_readme_says_the_committed_numbers() -> None:
    """The differences that stand in its sentences."""
    readme = " ".join((ROOT / "README.md").read_text().replace("−", "-").split())

    def said(study: str, comparison: str, measure: str, digits: int) -> str:
        claims = Published(ROOT / "results" / study).read("claims.csv")
        own = claims[(claims["comparison"] == comparison) & (claims["measure"] == measure)]
        row = own[own["decides"].isin([True, "True"])].iloc[0]
        return (
            f"{row['difference']:+.{digits}f} [{row['low']:+.{digits}f}, {row['high']:+.{digits}f}]"
        )

    tuned = "swa − sgd-linear"
    assert f"{said('layer4', tuned, 'test accuracy', 2)} points" in readme
    assert f"{said('layer4', tuned, 'test loss', 4)} nats" in readme
    pair = "swa − sgd-multiplicative"
    assert f"{said('mnist', pair, 'test accuracy', 2)} points" in readme
    assert f"{said('mnist-tuned', pair, 'test accuracy', 2)} points" in readme
    assert f"{said('mnist-tuned', pair, 'test loss', 4)} nats" in readme
    sweep = Published(ROOT / "results" / "mnist").read("trajectories.csv").set_index("rate")
    gains = sweep["accuracy_difference"]
    assert f"from {abs(gains[0.00125]):.1f} points less at rate 0.00125" in readme
    assert f"to {gains[0.1]:.1f} points more at 0.1" in readme
    constant = sweep[sweep["method"].str.startswith("swa-rate")]
    assert f"the average itself is best at {constant['average_accuracy'].idxmax():g}" in readme


def test_the_readme_says_the_committed_losses_of_the_network() -> None:
    """How far SWA's loss is below others: of its iterate, of SGD, of SGD with a decayed rate."""
    readme = " ".join((ROOT / "README.md").read_text().split())
    network = Published(ROOT / "results" / "network")
    paths, claims = network.read("trajectories.csv"), network.read("claims.csv")
    own = paths[paths["method"] == "swa"].iloc[0]
    found = [own[f"loss_difference{end}"] for end in ("", "_low", "_high")]
    expected = [found]
    for other in ("sgd", "sgd-multiplicative"):
        rows = claims[claims["comparison"] == f"swa − {other}"]
        row = rows[rows["measure"] == "test loss"].iloc[0]
        expected.append([row["difference"], row["low"], row["high"]])
    for mean, low, high in expected:
        assert f"{-mean:.4f} [{-high:.4f}, {-low:.4f}]" in readme


def test_the_readme_says_what_averaging_gains_in_the_last_stage() -> None:
    """On the iterate of the same run, and beside Adam that goes on."""
    readme = " ".join((ROOT / "README.md").read_text().split())
    layer4 = Published(ROOT / "results" / "layer4")
    paths, claims = layer4.read("trajectories.csv"), layer4.read("claims.csv")
    own = paths[paths["method"] == "swa-rate-0.01"].iloc[0]
    gained = [own[f"accuracy_difference{end}"] for end in ("", "_low", "_high")]
    assert "{:.2f} [{:.2f}, {:.2f}] points better than the iterate".format(*gained) in readme
    lower = [-own[f"loss_difference{end}"] for end in ("", "_high", "_low")]
    assert "{:.3f} [{:.3f}, {:.3f}] nats. No row".format(*lower) in readme
    longer = claims[claims["comparison"] == "adam-longer − adam"].iloc[0]
    said = [longer[column] for column in ("difference", "low", "high")]
    assert "it gains {:.2f} [{:.2f}, {:.2f}] points".format(*said) in readme
    against = claims[claims["comparison"].str.endswith(" − adam-longer")]
    assert len(against)
    assert (against["difference"] < 0).all()


def test_the_readme_says_how_the_rows_stand_on_a_trained_backbone() -> None:
    """Beside SGD with a decayed rate, and beside Adam that goes on."""
    readme = " ".join((ROOT / "README.md").read_text().split())
    transfer = Published(ROOT / "results" / "transfer")
    claims, table = transfer.read("claims.csv"), transfer.read("table.csv").set_index("method")
    for measure, digits, words, finding in (
        ("test accuracy", 2, "not distinguished in accuracy, {} points", "open"),
        ("test loss", 4, "a little worse in loss, {} nats", "worse, by less than 0.005 nats"),
    ):
        own = claims[claims["measure"] == measure]
        row = own[own["comparison"] == "swa − sgd-multiplicative"].iloc[0]
        mean, low, high = (
            f"{row[column]:+.{digits}f}".replace("-", "−")
            for column in ("difference", "low", "high")
        )
        assert words.format(f"{mean} [{low}, {high}]") in readme
        assert row["finding"] == finding
    start, rows = table["accuracy"]["adam"], table["accuracy"].drop("adam")
    assert f"alone reaches {start:.1f} %, the rows {rows.min():.1f} to {rows.max():.1f} %" in readme
    rises = claims[claims["measure"] == "log of the mean rise of the train loss along random rays"]
    assert rises.set_index("comparison")["finding"]["swa − sgd"].startswith("flatter")
    assert "differ by at most 0.3 points" in readme
    assert rows.max() - rows.min() <= 0.3
    accuracies = claims[claims["measure"] == "test accuracy"]
    against = accuracies[accuracies["comparison"].str.endswith(" − adam-longer")]["difference"]
    assert f"{-against.max():.1f} to {-against.min():.1f} points better than every row" in readme


def test_the_readme_says_the_committed_shares_of_the_sources() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    shown = Published(ROOT / "results" / "mnist-sources").read("sources.csv")
    shown = shown[shown["measure"] == "accuracy"]
    shares = shown.groupby(["quantity", "source"])["share"].mean()
    of_rows, of_differences = shares["result"], shares["difference_to_sgd"]
    assert 0.85 < of_rows["backbone"] < 0.95
    assert "nine tenths of the variance of a row's accuracy come from the backbone" in readme
    percent = {
        source: f"{share:.0%}".replace("%", " %") for source, share in of_differences.items()
    }
    assert (
        f"{percent['split']} come from the split, {percent['backbone']} from the backbone, "
        f"{percent['order']} from the order of the data and {percent['head']} from the final"
        in readme
    )
