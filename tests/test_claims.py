"""Verdicts on records built so that the truth is known, and the parts they rest on."""

import gc
import itertools
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from swabench.analysis import claims_text
from swabench.analysis.claims import Claim, ClaimContext, context, decide_claims, rates
from swabench.analysis.claims.stability import swing
from swabench.analysis.evidence import Comparer, Evidence, corrected, judge
from swabench.analysis.flatness import LINE, Flatness, mean_rise, measure_flatness
from swabench.analysis.frame import collect
from swabench.analysis.statistics import Estimate, seeds_needed
from swabench.records import RecordStore
from swabench.study.study import Study
from tests.made_up import Truth, record_of, study_with, write_run, write_study

GOLDEN = Path(__file__).parent / "golden"
SEEDS = 10
RATES = [0.0025, 0.02, 0.1]
SWEEP = {"methods": ["sgd", "swa"], "rates": RATES}
SGD_RATES = ("sgd-rate-0.02", "sgd-rate-0.1")
SWA_RATES = ("swa-rate-0.02", "swa-rate-0.1")


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> Iterator[None]:
    """Statsmodels collects garbage at every Holm correction; all of torch is not its business."""
    gc.freeze()
    yield
    gc.unfreeze()


def decided(
    results: Path,
    truths: dict[str, Truth],
    *,
    study: Study | None = None,
    without: tuple[tuple[str, int], ...] = (),
    flatness: Flatness | None = None,
) -> dict[str, Claim]:
    study = study or study_with(SEEDS, rate_sweep=None)
    store = write_study(results, study, truths, without=without)
    seeds = list(study.seeds)
    records = collect(study, store, seeds, study.run_names)
    return {claim.key: claim for claim in decide_claims(study, records, seeds, flatness)}


@pytest.mark.parametrize(
    ("key", "truths", "verdict"),
    [
        ("C1", {"adam": Truth(accuracy=92)}, "supported"),
        ("C1", {"adam": Truth(accuracy=92), "pswa": Truth(accuracy=91.5)}, "contradicted"),
        ("C1", {"adam": Truth(accuracy=92), "pswa": Truth(accuracy=92)}, "not distinguished"),
        ("C1", {"adam": Truth(accuracy=92, spread=4)}, "not distinguished"),
        ("C2", {}, "supported"),
        ("C2", {"swa": Truth(accuracy=93.5)}, "contradicted"),
        ("C2", {"swa-cyclical": Truth(accuracy=92.5)}, "contradicted"),
        ("C2", {"swa": Truth(spread=1)}, "not distinguished"),
        ("C3", {}, "supported"),
        ("C3", {"swa-cyclical": Truth(average_swing=2)}, "contradicted"),
        ("C3", {"swa-cyclical": Truth(average_swing=0.3)}, "not distinguished"),
        ("C5", {"pswa": Truth(accuracy=93.3)}, "supported"),
        ("C5", {"pswa": Truth(accuracy=92.7)}, "contradicted"),
        ("C5", {}, "not distinguished"),
        ("C5", {"pswa": Truth(accuracy=93.3, spread=1.5)}, "not distinguished"),
        ("C6", {}, "supported"),
        ("C6", {"swa": Truth(ensemble_gap=0.5)}, "contradicted"),
        ("C6", {"swa": Truth(ensemble_loss_gap=0.02)}, "contradicted"),
        ("C6", {"swa": Truth(average_noise=2)}, "contradicted"),
        ("C6", {"swa": Truth(average_noise=1)}, "not distinguished"),
    ],
)
def test_verdicts_are_right_where_the_truth_is_known(
    tmp_path: Path, key: str, truths: dict[str, Truth], verdict: str
) -> None:
    claim = decided(tmp_path, truths)[key]
    assert claim.verdict == verdict, claim


@pytest.mark.parametrize(
    ("truths", "verdict"),
    [
        # SWA bears the high rates and SGD does not.
        (dict.fromkeys(SGD_RATES, Truth(accuracy=90)), "supported"),
        # Both bear them.
        ({"sgd-rate-0.0025": Truth(accuracy=93.1)}, "contradicted"),
        # Neither bears them.
        (dict.fromkeys(SGD_RATES + SWA_RATES, Truth(accuracy=90)), "contradicted"),
        # SGD at them is worse, by how much cannot be told.
        (dict.fromkeys(SGD_RATES, Truth(accuracy=92.7, spread=1.2)), "not distinguished"),
    ],
)
def test_rates_are_judged_by_both_methods(
    tmp_path: Path, truths: dict[str, Truth], verdict: str
) -> None:
    claim = decided(tmp_path, truths, study=study_with(SEEDS, rate_sweep=SWEEP))["C7"]
    assert claim.verdict == verdict, claim


def test_a_sweep_below_the_best_rate_decides_nothing(tmp_path: Path) -> None:
    truths = {"sgd-rate-0.1": Truth(accuracy=94)}
    claim = decided(tmp_path, truths, study=study_with(SEEDS, rate_sweep=SWEEP))["C7"]
    assert claim.verdict == "not distinguished"
    assert any("No rate above" in note for note in claim.notes)


@pytest.mark.parametrize(
    ("ratio", "noise", "verdict"),
    [(1.0, 0.02, "supported"), (1.5, 0.02, "contradicted"), (0.6, 0.02, "contradicted"),
     (1.105, 0.02, "not distinguished"), (1.0, 0.8, "not distinguished")],
)  # fmt: skip
def test_flatness_is_compared_as_a_ratio(
    tmp_path: Path, ratio: float, noise: float, verdict: str
) -> None:
    rng = np.random.default_rng(1)
    sgd = {seed: float(rng.uniform(1, 2)) for seed in range(SEEDS)}
    swa = {seed: value * ratio * float(np.exp(rng.normal(0, noise))) for seed, value in sgd.items()}
    flatness = {LINE: {"sgd": sgd, "swa": swa}, "trace": {"sgd": {0: 1.0}, "swa": {0: 2.0}}}
    claim = decided(tmp_path, {}, flatness=flatness)["C4"]
    assert claim.verdict == verdict, claim
    assert [e.decides for e in claim.evidence] == [True, False]
    assert "1 of 10 seeds" in claim.evidence[1].measure
    wider = {1.5: "sgd has the wider", 0.6: "swa has the wider"}.get(ratio, "as around sgd.")
    assert wider in claim.reason


def test_what_is_missing_is_named_and_decides_nothing(tmp_path: Path) -> None:
    found = decided(tmp_path, {}, without=(("pswa", 3), ("pswa", 4), ("swa", 0)))
    assert found["C5"].verdict == "not measured"
    assert found["C5"].reason == "pswa lacks seeds 3, 4."
    assert "swa lacks seeds 0" in found["C1"].reason
    assert "pswa lacks seeds 3, 4" in found["C1"].reason
    assert found["C3"].verdict == "supported"
    assert found["C4"].verdict == "not measured"
    assert found["C4"].reason == "swa lacks seeds 0."
    assert found["C7"].verdict == "not measured"
    assert "rate_sweep" in found["C7"].reason
    assert found["C8"].verdict == "not tested"


@pytest.mark.parametrize(
    ("measured", "lacking"),
    [
        (None, "swa at seeds 0, 1, 2, 3; sgd at seeds 0, 1, 2, 3."),
        ({"sgd": range(4), "swa": (0, 1)}, "along the line of swa at seeds 2, 3."),
        ({"sgd": (0, 1), "swa": (2, 3)}, "swa at seeds 0, 1; sgd at seeds 2, 3."),
    ],
)
def test_without_a_landscape_flatness_is_not_measured(
    tmp_path: Path, measured: dict[str, Sequence[int]] | None, lacking: str
) -> None:
    flatness: Flatness | None = None
    if measured is not None:
        flatness = {LINE: {name: dict.fromkeys(s, 1.0) for name, s in measured.items()}}
    study = study_with(4, rate_sweep=None)
    claim = decided(tmp_path, {}, study=study, flatness=flatness)["C4"]
    assert claim.verdict == "not measured"
    assert lacking in claim.reason
    assert claim.evidence == ()


def test_a_loss_that_falls_along_the_line_is_not_called_unmeasured(tmp_path: Path) -> None:
    rises = dict.fromkeys(range(SEEDS), 1.0)
    flatness = {LINE: {"sgd": rises, "swa": {**rises, 3: -0.1}}}
    claim = decided(tmp_path, {}, flatness=flatness)["C4"]
    assert claim.verdict == "not measured"
    assert "is no rise but a fall for swa at seeds 3" in claim.reason


@pytest.mark.parametrize(
    ("best", "word"), [("sgd-rate-0.0025", "lowest"), ("sgd-rate-0.1", "highest")]
)
def test_a_best_rate_at_the_edge_of_the_sweep_is_noted(
    tmp_path: Path, best: str, word: str
) -> None:
    study = study_with(3, rate_sweep=SWEEP)
    notes = " ".join(decided(tmp_path, {best: Truth(accuracy=95)}, study=study)["C7"].notes)
    assert f"sgd: for 3 of 3 seeds the best rate is the {word} tried" in notes


def test_a_study_without_the_method_says_so(tmp_path: Path) -> None:
    base = study_with(2)
    methods = {name: m for name, m in base.model_dump()["methods"].items() if name != "pswa"}
    study = study_with(2, methods=methods, rate_sweep=None, claims={})
    assert "no method 'pswa'" in decided(tmp_path, {}, study=study)["C5"].reason


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_decide_nothing_however_large_the_difference(tmp_path: Path, seeds: int) -> None:
    study = study_with(seeds, rate_sweep=SWEEP)
    found = decided(tmp_path, {"adam": Truth(accuracy=50)}, study=study)
    for key in ("C1", "C2", "C3", "C5", "C6", "C7"):
        assert found[key].verdict == "not distinguished", key
    assert f"{seeds} seeds are too few for the sign-flip test" in found["C5"].reason


def test_mcnemar_counts_seeds_and_never_pools(tmp_path: Path) -> None:
    # At 400 images 93 % and 80 % differ at every seed, 93 % and 92.9 % at none.
    found = decided(tmp_path, {"adam": Truth(accuracy=80), "pswa": Truth(accuracy=92.9)})
    assert all(e.mcnemar_seeds == tuple(range(SEEDS)) for e in found["C1"].evidence if e.decides)
    assert found["C5"].evidence[0].mcnemar_seeds == ()
    assert "0 of 10 seeds." in found["C5"].notes[0]


def test_records_without_labels_have_no_mcnemar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = context._test_predictions
    monkeypatch.setattr(
        context,
        "_test_predictions",
        lambda record: {k: v for k, v in kept(record).items() if k != "labels"},
    )
    claim = decided(tmp_path, {})["C5"]
    assert claim.evidence[0].mcnemar_seeds is None
    assert claim.notes == ()


# --- which numbers a verdict rests on ------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    """Runs that differ in everything, and rates whose order by validation is not that by test."""
    truths = {
        "adam": Truth(accuracy=92, loss=0.28, spread=0.3),
        "sgd": Truth(spread=0.2),
        "sgd-rate-0.0025": Truth(accuracy=93.2, validation=93.1),
        "sgd-rate-0.02": Truth(accuracy=93.0, validation=93.4),
        "sgd-rate-0.1": Truth(accuracy=92.5, validation=92.7),
        "swa": Truth(accuracy=93.5, spread=0.1, ensemble_gap=0.05, ensemble_loss_gap=0.002),
        "swa-rate-0.0025": Truth(accuracy=92.8, validation=93.6),
        "swa-rate-0.02": Truth(accuracy=93.4, validation=93.2),
        "swa-rate-0.1": Truth(accuracy=93.1, validation=93.0),
    }
    return write_study(tmp_path_factory.mktemp("results"), SWEPT, truths)


SWEPT = study_with(SEEDS, rate_sweep=SWEEP, confidence=0.8)


@pytest.fixture(scope="module")
def found(swept: RecordStore) -> dict[str, Claim]:
    records = collect(SWEPT, swept, range(SEEDS), SWEPT.run_names)
    return {claim.key: claim for claim in decide_claims(SWEPT, records, range(SEEDS), FLATNESS)}


FLATNESS = {
    LINE: {
        name: {seed: 1 + (seed + k) % 4 / 9 for seed in range(SEEDS)}
        for k, name in enumerate(("sgd", "swa", "pswa"))
    }
}


def final(
    store: RecordStore, name: str, measure: str, predictor: str = "", split: str = "test"
) -> np.ndarray:
    """The last measurement at every seed, looked up by hand; of the result by default."""
    averages = SWEPT.row_method(name).averaging is not None
    predictor = predictor or ("average" if averages else "iterate")
    values = []
    for seed in range(SEEDS):
        history = record_of(store, name, seed).history
        (last,) = (
            getattr(m, measure)
            for m in history
            if (m.predictor, m.split) == (predictor, split)
            and m.epoch == SWEPT.row_stage(name).epochs
        )
        values.append(last)
    return np.array(values)


def check(claim: Claim, comparison: str, measure: str, differences: np.ndarray) -> None:
    """A comparison's estimate is that of the differences; so are both its tests of zero."""
    (e,) = (e for e in claim.evidence if (e.comparison, e.measure) == (comparison, measure))
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.8)
    deviation = differences.std(ddof=1)
    expected = [differences.mean(), low, high, deviation, len(differences)]
    estimate = e.estimate
    values = [estimate.mean, estimate.low, estimate.high, estimate.deviation, estimate.n]
    np.testing.assert_allclose(values, expected, rtol=1e-7, atol=1e-12)
    assert e.p_t == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    both = 2 * min(sign_flips(differences), sign_flips(-differences))
    assert e.p_sign_flip == pytest.approx(min(1, both))


def test_methods_are_compared_by_their_results_on_the_test_images(
    swept: RecordStore, found: dict[str, Claim]
) -> None:
    pairs = [
        *(("C1", name, "adam") for name in SWEPT.methods),
        ("C2", "swa", "sgd"),
        ("C2", "swa-cyclical", "sgd"),
        ("C5", "pswa", "swa-cyclical"),
    ]
    for key, name, other in pairs:
        for measure in ("accuracy", "loss"):
            differences = final(swept, name, measure) - final(swept, other, measure)
            check(found[key], f"{name} − {other}", f"test {measure}", differences)
    assert len(found["C1"].evidence) + len(found["C2"].evidence) == 2 * 7
    assert len(found["C5"].evidence) == 2


def test_steadiness_is_of_the_test_curves_after_the_transient(
    swept: RecordStore, found: dict[str, Claim]
) -> None:
    def swings(predictor: str, measure: str) -> np.ndarray:
        values = []
        for seed in range(SEEDS):
            history = record_of(swept, "swa-cyclical", seed).history
            course = [
                getattr(m, measure)
                for m in history
                if (m.predictor, m.split) == (predictor, "test") and m.epoch >= 5  # 15 / 3
            ]
            assert len(course) == 11
            values.append(np.diff(course).std(ddof=1))
        return np.array(values)

    for measure in ("accuracy", "loss"):
        differences = swings("average", measure) - swings("iterate", measure)
        name = f"swing of the test {measure}"
        check(found["C3"], "swa-cyclical: average − iterate", name, differences)


def test_flatness_is_compared_between_swa_and_sgd(found: dict[str, Claim]) -> None:
    swa, sgd = (np.array([*FLATNESS[LINE][name].values()]) for name in ("swa", "sgd"))
    check(found["C4"], "swa − sgd", f"log of the {LINE}", np.log(swa / sgd))


def test_the_average_is_compared_with_the_ensemble_and_the_iterate_of_its_own_run(
    swept: RecordStore, found: dict[str, Claim]
) -> None:
    for name in ("swa", "swa-cyclical"):
        for measure in ("accuracy", "loss"):
            differences = final(swept, name, measure, "average") - final(
                swept, name, measure, "ensemble"
            )
            check(found["C6"], f"{name}: average − ensemble", f"test {measure}", differences)
        arrays = [record_of(swept, name, seed).arrays() for seed in range(SEEDS)]
        predicted = {
            predictor: np.stack([np.exp(a[f"log_probabilities/{predictor}/test"]) for a in arrays])
            for predictor in ("iterate", "average", "ensemble")
        }

        def distances(every: np.ndarray) -> np.ndarray:
            values = []
            for seed in range(SEEDS):
                others = np.delete(every, seed, axis=0).mean(axis=0)
                values.append(((every[seed] - others) ** 2).sum(axis=1).mean())
            return np.array(values, dtype=float)

        differences = distances(predicted["average"]) - distances(predicted["iterate"])
        comparison = f"{name}: average − iterate"
        measure = "variance of the predictions over seeds"
        (e,) = (
            e for e in found["C6"].evidence if (e.comparison, e.measure) == (comparison, measure)
        )
        assert e.estimate.mean == pytest.approx(differences.mean(), rel=1e-4)
        same = predicted["average"].argmax(-1) == predicted["ensemble"].argmax(-1)
        (e,) = (e for e in found["C6"].evidence if e.comparison == f"{name}: average and ensemble")
        assert e.estimate.mean == pytest.approx(100 * same.mean())


def test_mcnemar_is_of_the_results_test_predictions_seed_by_seed(
    swept: RecordStore, found: dict[str, Claim]
) -> None:
    told = []
    for key, name, other in (("C1", "swa", "adam"), ("C2", "swa", "sgd")):
        telling = []
        for seed in range(SEEDS):
            right = []
            for each in (name, other):
                arrays = record_of(swept, each, seed).arrays()
                result = "average" if each == "swa" else "iterate"
                predicted = arrays[f"log_probabilities/{result}/test"].argmax(1)
                right.append(predicted == arrays["labels/test"])
            split = sorted((int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())))
            if sum(split) and mid_p(*split) < 0.05:
                telling.append(seed)
        (e,) = (e for e in found[key].evidence if e.comparison == f"{name} − {other}" and e.decides)
        assert e.mcnemar_seeds == tuple(telling)
        told.append(len(telling))
    assert 0 < told[0] < SEEDS


def mid_p(fewer: int, more: int) -> float:
    exact = stats.binomtest(fewer, fewer + more).pvalue
    return float(exact - stats.binom.pmf(fewer, fewer + more, 0.5))


def best_rates(store: RecordStore, method: str) -> list[str]:
    """For every seed the run with the best mean validation accuracy at all other seeds."""
    runs = [f"{method}-rate-{rate:g}" for rate in RATES]
    scores = np.stack([final(store, run, "accuracy", split="validation") for run in runs])
    others = (scores.sum(axis=1, keepdims=True) - scores) / (SEEDS - 1)
    return [runs[k] for k in others.argmax(axis=0)]


def test_rates_are_chosen_on_validation_images_and_compared_on_test_images(
    swept: RecordStore, found: dict[str, Claim]
) -> None:
    for method, best in (("sgd", "sgd-rate-0.02"), ("swa", "swa-rate-0.0025")):
        assert set(best_rates(swept, method)) == {best}
        tested = {rate: final(swept, f"{method}-rate-{rate:g}", "accuracy") for rate in RATES}
        # On the test images another rate is the best.
        assert max(RATES, key=lambda rate: tested[rate].mean()) != float(best.rsplit("-", 1)[1])
        for rate, values in tested.items():
            differences = values - final(swept, best, "accuracy")
            if differences.any():
                label = f"{method}: at {rate:g} − at its best rate"
                check(found["C7"], label, "test accuracy", differences)
    assert len(found["C7"].evidence) == 2 * len(RATES)
    # Only a rate above SGD's best, which is 0.02 on the validation images, decides.
    (deciding,) = (e for e in found["C7"].evidence if e.decides)
    assert deciding.comparison == "sgd: at 0.1 − at its best rate"


@pytest.mark.parametrize(
    ("sgd", "swa"),
    [
        (Truth(accuracy=92.7, spread=0.2), Truth(accuracy=92.95, spread=0.1)),  # for it
        (Truth(accuracy=92.93, spread=0.1), Truth(accuracy=92.95, spread=0.1)),  # SGD bears it
        (Truth(accuracy=92.7, spread=0.2), Truth(accuracy=92.7, spread=0.2)),  # neither does
    ],
)
def test_a_rates_p_values_are_of_both_methods(tmp_path: Path, sgd: Truth, swa: Truth) -> None:
    """For the claim both must be shown, so the larger counts; against it either, so twice."""
    low = dict.fromkeys(("sgd-rate-0.0025", "swa-rate-0.0025"), Truth(validation=95))
    study = study_with(SEEDS, rate_sweep={"methods": ["sgd", "swa"], "rates": RATES[::2]})
    truths = {**low, "sgd-rate-0.1": sgd, "swa-rate-0.1": swa}
    store = write_study(tmp_path, study, truths)
    records = collect(study, store, range(SEEDS), study.run_names)
    claims = {c.key: c for c in decide_claims(study, records, range(SEEDS))}
    (e,) = (e for e in claims["C7"].evidence if e.decides)
    lost = {
        method: final(store, f"{method}-rate-0.0025", "accuracy")
        - final(store, f"{method}-rate-0.1", "accuracy")
        for method in ("sgd", "swa")
    }
    assert e.p_for == pytest.approx(max(above(lost["sgd"]), within(lost["swa"])))
    against = min(above(lost["swa"]), within(lost["sgd"]))
    assert e.p_against == pytest.approx(min(1, 2 * against))
    assert min(e.p_for, e.p_against) < 0.4


MARGIN = SWEPT.claims.margin_points


def above(values: np.ndarray) -> float:
    """One-sided p of a mean above the margin, the larger of the t and the sign-flip test's."""
    t = stats.ttest_1samp(values, MARGIN, alternative="greater").pvalue
    return float(max(t, sign_flips(values - MARGIN))) if values.mean() > MARGIN else 1.0


def within(values: np.ndarray) -> float:
    """P of a mean within ±margin, the larger of two one-sided tests of each kind."""
    return max(above(2 * MARGIN + values), above(2 * MARGIN - values))


def test_a_seeds_rate_is_chosen_at_the_other_seeds(tmp_path: Path) -> None:
    """Every seed's own validation accuracies speak for another rate than those of the others."""
    study = study_with(3, rate_sweep={"methods": ["sgd", "swa"], "rates": RATES[:2]})
    store = write_study(tmp_path, study)
    # At seed 0 the low rate is best by far, at seeds 1 and 2 the high one is, by less.
    ahead = {0: 3.0, 1: -1.0, 2: -1.0}
    for seed, points in ahead.items():
        folder = record_of(store, "sgd-rate-0.0025", seed).folder
        shutil.rmtree(folder)
        truth = Truth(spread=0, shared=0, validation=93 + points)
        write_run(store, study, "sgd-rate-0.0025", seed, truth)
    records = collect(study, store, range(3), study.run_names)
    drawn_on = ClaimContext(study, records, [0, 1, 2], {})
    # Without seed 0 the high rate leads by one point a seed; with it the low one by two in all.
    assert rates.best_rates(drawn_on, "sgd") == {0: 0.02, 1: 0.0025, 2: 0.0025}
    # A rate that is the best for any seed is not too high: only those above all of them decide.
    assert not any(e.decides for e in rates.high_rates_suit_swa_only(drawn_on))
    claim = next(c for c in decide_claims(study, records, [0, 1, 2]) if c.key == "C7")
    assert (
        "sgd: best rate on the validation images of the other seeds: 0.0025 (for 2 seeds), "
        in (claim.notes[0])
    )
    # No rate is above the best of every seed.
    assert not any(e.decides for e in claim.evidence)


def test_every_part_is_played_by_the_method_that_the_rules_name(tmp_path: Path) -> None:
    parts = {
        "sgd": "sgd-multiplicative",
        "swa": "swa-cyclical",
        "swa_cyclical": "swa",
        "pswa": "swa-cyclical",
    }
    study = study_with(3, rate_sweep=None, claims=parts)
    flatness = {LINE: {name: dict.fromkeys(range(3), 1.0) for name in study.row_names}}
    found = decided(tmp_path, {}, study=study, flatness=flatness)
    shown = {key: {e.comparison for e in claim.evidence} for key, claim in found.items()}
    assert shown["C1"] == {f"{name} − adam" for name in study.methods}
    assert shown["C2"] == {"swa-cyclical − sgd-multiplicative", "swa − sgd-multiplicative"}
    assert shown["C3"] == {"swa: average − iterate"}
    assert shown["C4"] == {"swa-cyclical − sgd-multiplicative"}
    assert shown["C5"] == {"swa-cyclical − swa"}
    assert {label.split(":")[0] for label in shown["C6"]} == {"swa-cyclical", "swa"}
    for key, words in (
        ("C2", "of swa-cyclical and of swa less that of sgd-multiplicative"),
        ("C3", "test loss of swa, average less iterate"),
        ("C5", "of swa-cyclical less that of swa,"),
    ):
        assert words in found[key].measure


def test_golden_markdown(tmp_path: Path) -> None:
    study = study_with(SEEDS, rate_sweep=SWEEP)
    truths = {
        "adam": Truth(accuracy=92, loss=0.28),
        "pswa": Truth(accuracy=93.02, spread=0.1),
        **dict.fromkeys(SGD_RATES, Truth(accuracy=91)),
    }
    found = decided(tmp_path, truths, study=study, without=(("sgd-multiplicative", 4),))
    text = claims_text.claims_markdown(list(found.values()), study)
    golden = GOLDEN / "claims.md"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_the_frame_has_every_comparison_and_every_claim(tmp_path: Path) -> None:
    found = decided(tmp_path, {})
    frame = claims_text.evidence_frame(list(found.values()))
    assert list(dict.fromkeys(frame["claim"])) == list(found)
    assert (frame["claim"] == "C6").sum() == len(found["C6"].evidence)
    assert frame.loc[frame["claim"] == "C7", "comparison"].isna().all()


# --- what verdicts rest on -------------------------------------------------------------------


@pytest.fixture
def compare() -> Comparer:
    return Comparer(study_with(8), np.random.default_rng(0))


def sign_flips(values: np.ndarray) -> float:
    """One tail of the sign-flip test, by every pattern."""
    means = [
        float(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=len(values))
    ]
    return float(np.mean(np.array(means) >= values.sum() - 1e-12))


def test_one_sided_p_is_the_larger_of_both_tests(compare: Comparer) -> None:
    values = np.random.default_rng(2).normal(0.5, 0.5, 8)
    for threshold in (0.0, 0.2):
        t = stats.ttest_1samp(values, threshold, alternative="greater").pvalue
        assert compare.p_above(values, threshold) == pytest.approx(
            max(t, sign_flips(values - threshold))
        )
    assert compare.p_above(values, 5) == 1


def test_equality_is_the_larger_of_both_kinds_of_tost(compare: Comparer) -> None:
    values = np.random.default_rng(3).normal(0.02, 0.1, 8)
    margin = 0.15
    t = max(
        stats.ttest_1samp(values, -margin, alternative="greater").pvalue,
        stats.ttest_1samp(values, margin, alternative="less").pvalue,
    )
    flips = max(sign_flips(margin + values), sign_flips(margin - values))
    assert compare.p_within(values, margin) == pytest.approx(max(t, flips))
    assert compare.p_within(values, 0.01) == 1


def over_seeds(values: np.ndarray) -> dict[int, float]:
    return dict(enumerate(values.tolist()))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("mean", [0.1, -0.1])
def test_a_difference_is_tested_on_both_sides(
    compare: Comparer, mean: float, sign: Literal[1, -1]
) -> None:
    """What decides is the larger of both tests' two-sided p, on the side that the data are on."""
    d = np.random.default_rng(4).normal(mean, 0.1, 8)
    zeros = over_seeds(np.zeros(8))
    found = compare.directed("", "", "", over_seeds(d), zeros, sign)
    flips = 2 * min(sign_flips(d), sign_flips(-d))
    expected = max(stats.ttest_1samp(d, 0).pvalue, flips)
    assert expected < 0.2
    towards, away = (found.p_for, found.p_against)
    if d.mean() * sign < 0:
        towards, away = away, towards
    assert (towards, away) == pytest.approx((expected, 1))


@pytest.mark.parametrize("mean", [0.4, -0.4])
def test_a_difference_beyond_a_margin_is_tested_on_both_sides(
    compare: Comparer, mean: float
) -> None:
    d, margin = np.random.default_rng(5).normal(mean, 0.1, 8), 0.3
    found = compare.equal("", "", "", over_seeds(d), over_seeds(np.zeros(8)), margin)
    beyond = np.sign(mean) * d - margin
    t = stats.ttest_1samp(beyond, 0, alternative="greater").pvalue
    assert found.p_against == pytest.approx(2 * max(t, sign_flips(beyond)))
    assert found.p_for == 1


def evidence(p_for: float, p_against: float) -> Evidence:
    return Evidence("a − b", "m", "", Estimate(0, 0, 0, 0, 9), 1, 1, p_for, p_against)


def test_holm_corrects_what_decides_and_only_that() -> None:
    shown = replace(evidence(0, 0), p_for=float("nan"), p_against=float("nan"))
    found = corrected([evidence(0.01, 0.4), shown, evidence(0.02, 0.03)], 0.05)
    assert [e.p_for for e in found if e.decides] == pytest.approx([0.02, 0.02])
    assert [e.p_against for e in found if e.decides] == pytest.approx([0.4, 0.06])
    assert [e.decides for e in found] == [True, False, True]


@pytest.mark.parametrize(
    ("mean", "margin", "distance", "level"),
    [
        (0.2, 0, 0.2, 0.02),
        (-0.2, 0, 0.2, 0.02),
        (0.2, 0.15, 0.05, 0.02),  # beyond the margin
        (-0.2, 0.15, 0.05, 0.02),
        (0.05, 0.15, 0.1, 0.04),  # within it, which is a one-sided question at each end
        (-0.05, 0.15, 0.1, 0.04),
    ],
)
def test_seeds_needed_are_those_that_tell_the_difference_from_the_nearer_margin(
    mean: float, margin: float, distance: float, level: float
) -> None:
    study = study_with(8, claims={"alpha": 0.02, "power": 0.9})
    compare = Comparer(study, np.random.default_rng(0))
    found = compare.needed(Estimate(mean, 0, 0, 0.1, 8), margin)
    assert found == seeds_needed(distance, 0.1, 0.9, level)
    d = np.random.default_rng(1).normal(size=8)
    d = mean + 0.1 * (d - d.mean()) / d.std(ddof=1)
    zeros = over_seeds(np.zeros(8))
    if margin:
        whole = compare.equal("", "", "", over_seeds(d), zeros, margin)
    else:
        whole = compare.directed("", "", "", over_seeds(d), zeros, 1)
    assert whole.seeds_needed == found


@pytest.mark.parametrize(("one_sided", "fewest"), [(False, 8), (True, 7)])
def test_the_sign_flip_test_can_reach_the_level_with_the_fewest_seeds(
    one_sided: bool, fewest: int
) -> None:
    some = replace(evidence(1, 1), one_sided=one_sided, seeds_needed=3)
    found = corrected([some] * 5, 0.05)[0]
    assert found.fewest_seeds == found.seeds_needed == fewest
    assert not found.has_too_few_seeds
    lowest = 2.0 ** -np.arange(20) if one_sided else 2.0 ** (1 - np.arange(20))
    assert np.flatnonzero(5 * lowest <= 0.05)[0] == fewest
    assert corrected([replace(some, seeds_needed=30)], 0.05)[0].seeds_needed == 30
    few = replace(some, estimate=Estimate(0, 0, 0, 0, fewest - 1))
    assert all(e.has_too_few_seeds for e in corrected([few] * 5, 0.05))
    # What is only shown is not corrected for.
    shown = replace(some, p_for=float("nan"), p_against=float("nan"))
    assert corrected([*[some] * 5, *[shown] * 5], 0.05)[0].fewest_seeds == fewest


def test_all_must_speak_for_a_claim_and_any_against_it() -> None:
    assert judge([evidence(0.01, 1), evidence(0.05, 1)], 0.05) == "supported"
    assert judge([evidence(0.01, 1), evidence(0.06, 1)], 0.05) == "not distinguished"
    assert judge([evidence(0.01, 1), evidence(1, 0.05)], 0.05) == "contradicted"
    assert judge([], 0.05) == "not distinguished"


def test_swing_is_zero_for_a_steady_trend() -> None:
    assert swing([1, 2, 3, 4]) == 0
    # Changes +1, −1, +1, −1: deviation sqrt(4/3).
    assert swing([0, 1, 0, 1, 0]) == pytest.approx((4 / 3) ** 0.5)
    assert swing([1, 5]) == 0


def test_mean_rise_of_a_parabola() -> None:
    alpha = pd.Series(np.linspace(-3, 3, 601))
    # The widest stretch around 1 is −1 to 3: the mean of u² over ±2 is 4/3.
    assert mean_rise(alpha, 0.5 + (alpha - 1) ** 2, 1) == pytest.approx(4 / 3, rel=1e-3)
    ray = pd.Series(np.linspace(0, 3, 601))
    assert mean_rise(ray, 0.5 + ray**2, 0) == pytest.approx(3, rel=1e-3)


def test_flatness_is_measured_around_the_result_on_its_own_split() -> None:
    """Every number by hand: a mix-up of place, split, method or seed is another one."""
    alpha, distance = np.linspace(-3, 3, 61), np.linspace(0, 2, 41)

    def tables(seed: int) -> dict[str, pd.DataFrame]:
        factors = {("sgd", "train"): 1, ("sgd", "test"): 2, ("swa", "train"): 3, ("swa", "test"): 5}
        lines = pd.concat(
            pd.DataFrame(
                # Around the start, α = 0, this would be a fall to one side.
                {"alpha": alpha, "end": end, "split": split, "loss": k * seed * (alpha - 1) ** 2}
            )
            for (end, split), k in factors.items()
        )
        rays = pd.concat(
            pd.DataFrame(
                {"distance": distance, "direction": direction, "method": method, "split": split,
                 "loss": 0.5 + direction * k * seed * distance}
            )
            for (method, split), k in factors.items()
            for direction in (1, 3)
        )  # fmt: skip
        sharpness = pd.DataFrame(
            {"method": ["sgd", "swa"], "epsilon": [1e-3, 5e-4], "sharpness": [4.0 * seed, 7.0]}
        )
        hessian = pd.DataFrame(
            {"method": ["sgd", "swa"], "largest_eigenvalue": [3.0 * seed, 2], "trace": [9.0, 8]}
        )
        return {"lines": lines, "rays": rays, "hessian": hessian, "sharpness": sharpness}

    found = measure_flatness({4: tables(4), 6: tables(6)})
    # The widest stretch around α = 1 is −1 to 3: the mean of u² over ±2 is 4/3. Of two rays with
    # slopes 1 and 3 the mean rises by 2 a unit: 2 over a stretch of 2.
    expected: Flatness = {
        LINE: {"sgd": {4: 2 * 4 * 4 / 3, 6: 2 * 6 * 4 / 3}, "swa": {4: 5 * 16 / 3, 6: 5 * 24 / 3}},
        LINE.replace("test", "train"): {
            "sgd": {4: 16 / 3, 6: 24 / 3},
            "swa": {4: 3 * 16 / 3, 6: 3 * 24 / 3},
        },
        "mean rise of the test loss along random rays": {
            "sgd": {4: 2 * 2 * 4, 6: 2 * 2 * 6},
            "swa": {4: 2 * 5 * 4, 6: 2 * 5 * 6},
        },
        "mean rise of the train loss along random rays": {
            "sgd": {4: 2 * 4, 6: 2 * 6},
            "swa": {4: 2 * 3 * 4, 6: 2 * 3 * 6},
        },
        "sharpness in a box of ε = 0.001": {"sgd": {4: 16, 6: 24}},
        "sharpness in a box of ε = 0.0005": {"swa": {4: 7, 6: 7}},
        "Hessian's largest eigenvalue": {"sgd": {4: 12, 6: 18}, "swa": {4: 2, 6: 2}},
        "Hessian's trace": {"sgd": {4: 9, 6: 9}, "swa": {4: 8, 6: 8}},
    }
    assert found.keys() == expected.keys()
    for measure, methods in expected.items():
        assert found[measure].keys() == methods.keys()
        for method, values in methods.items():
            assert found[measure][method] == pytest.approx(values, rel=2e-3), (measure, method)


def test_a_study_that_weights_by_scores_is_not_said_to_have_none(tmp_path: Path) -> None:
    whole = study_with(2).model_dump()
    plan = {"plan": "score-weighted"}
    rate = whole["methods"]["swa"]["rate"]
    methods = {**whole["methods"], "weighted": {"title": "", "rate": rate, "averaging": plan}}
    data = {**whole["data"], "selection_images": 100}
    study = study_with(2, methods=methods, data=data)
    store = write_study(tmp_path, study, {})
    records = collect(study, store, study.seeds, study.run_names)
    (c8,) = (claim for claim in decide_claims(study, records, study.seeds) if claim.key == "C8")
    assert c8.verdict == "not tested"
    assert "weighted" in c8.reason
