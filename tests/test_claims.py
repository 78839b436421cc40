"""Verdicts on records built so that the truth is known, and the parts they rest on."""

import gc
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from swabench.analysis import claims as claims_module
from swabench.analysis import claims_text
from swabench.analysis.claims import Claim, decide_claims
from swabench.analysis.evidence import Comparer, Evidence, corrected, judge
from swabench.analysis.flatness import LINE, Flatness, mean_rise, measure_flatness
from swabench.analysis.statistics import Estimate
from swabench.analysis.table import collect
from swabench.study.study import Study
from tests.synthetic import Truth, study_with, write_study

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


def test_without_a_landscape_flatness_is_not_measured(tmp_path: Path) -> None:
    some = {LINE: {"sgd": dict.fromkeys(range(SEEDS), 1.0), "swa": {0: 1.0, 1: 1.0}}}
    for number, flatness in enumerate((None, some)):
        claim = decided(tmp_path / str(number), {}, flatness=flatness)["C4"]
        assert claim.verdict == "not measured"
        assert "swa at seeds 2, 3" in claim.reason or flatness is None


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
    kept = claims_module._test_predictions
    monkeypatch.setattr(
        claims_module,
        "_test_predictions",
        lambda record: {k: v for k, v in kept(record).items() if k != "labels"},
    )
    claim = decided(tmp_path, {})["C5"]
    assert claim.evidence[0].mcnemar_seeds is None
    assert claim.notes == ()


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


def evidence(p_for: float, p_against: float) -> Evidence:
    return Evidence("a − b", "m", "", Estimate(0, 0, 0, 0, 9), 1, 1, p_for, p_against)


def test_holm_corrects_what_decides_and_only_that() -> None:
    shown = replace(evidence(0, 0), p_for=float("nan"), p_against=float("nan"))
    found = corrected([evidence(0.01, 1), shown, evidence(0.02, 1)], 0.05)
    assert [e.p_for for e in found if e.decides] == pytest.approx([0.02, 0.02])
    assert [e.decides for e in found] == [True, False, True]


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


def test_all_must_speak_for_a_claim_and_any_against_it() -> None:
    assert judge([evidence(0.01, 1), evidence(0.05, 1)], 0.05) == "supported"
    assert judge([evidence(0.01, 1), evidence(0.06, 1)], 0.05) == "not distinguished"
    assert judge([evidence(0.01, 1), evidence(1, 0.05)], 0.05) == "contradicted"
    assert judge([], 0.05) == "not distinguished"


def test_swing_is_zero_for_a_steady_trend() -> None:
    assert claims_module._swing([1, 2, 3, 4]) == 0
    # Changes +1, −1, +1, −1: deviation sqrt(4/3).
    assert claims_module._swing([0, 1, 0, 1, 0]) == pytest.approx((4 / 3) ** 0.5)
    assert claims_module._swing([1, 5]) == 0


def test_mean_rise_of_a_parabola() -> None:
    alpha = pd.Series(np.linspace(-3, 3, 601))
    # The widest stretch around 1 is −1 to 3: the mean of u² over ±2 is 4/3.
    assert mean_rise(alpha, 0.5 + (alpha - 1) ** 2, 1) == pytest.approx(4 / 3, rel=1e-3)
    ray = pd.Series(np.linspace(0, 3, 601))
    assert mean_rise(ray, 0.5 + ray**2, 0) == pytest.approx(3, rel=1e-3)


def test_flatness_reads_the_landscapes_tables() -> None:
    alpha = np.linspace(-3, 3, 61)
    lines = pd.concat(
        pd.DataFrame({"alpha": alpha, "end": end, "split": split, "loss": k * (alpha - 1) ** 2})
        for end, k in (("sgd", 1), ("swa", 2))
        for split in ("train", "test")
    )
    hessian = pd.DataFrame({"method": ["sgd"], "largest_eigenvalue": [3.0], "trace": [9.0]})
    sharpness = pd.DataFrame({"method": ["sgd"], "epsilon": [1e-3], "sharpness": [4.0]})
    distance = np.linspace(0, 2, 41)
    rays = pd.concat(
        pd.DataFrame(
            {"distance": distance, "direction": d, "method": "swa", "split": "test",
             "loss": d * distance}
        )
        for d in (1, 3)
    )  # fmt: skip
    parts = {"lines": lines, "rays": rays, "hessian": hessian, "sharpness": sharpness}
    found = measure_flatness({4: parts})
    assert found[LINE]["swa"][4] == pytest.approx(2 * found[LINE]["sgd"][4])
    assert found["Hessian's trace"] == {"sgd": {4: 9.0}}
    assert found["sharpness in a box of ε = 0.001"]["sgd"][4] == 4
    assert found["mean rise of the test loss along random rays"]["swa"][4] == pytest.approx(2)
