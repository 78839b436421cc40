"""What verdicts, notes and files of claims are put together from, piece by piece."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from swabench.analysis import claims_text
from swabench.analysis.claims import Claim, claim_specs, decide, pairs_compared
from swabench.analysis.claims.context import ClaimContext
from swabench.analysis.claims.rates import sweep_runs
from swabench.analysis.crossed import MeanSquares, crossed_interval
from swabench.analysis.evidence import Comparer, Evidence, Quantity, judge
from swabench.analysis.flatness import Flatness, mean_rise
from swabench.analysis.frame import Records, collect
from swabench.analysis.predictions import PredictionTables, tables_of_predictions
from swabench.analysis.statistics import Estimate, compare_paired, sign_flip_p
from swabench.study.loading import load_study
from swabench.study.study import Study
from tests.made_up import Truth, record_of, study_with, the_controls, write_run, write_study

POINTS = Quantity("test accuracy", "points", 1, 0.15)
RAYS = Quantity("log of the rise along rays", "", -1, 0.1, ("flatter", "sharper"))


def evidence(comparison: str = "a − b", **changes: Any) -> Evidence:
    """Every number of it another one."""
    whole = Evidence(
        comparison, POINTS, Estimate(0.1, 0.02, 0.18, 0.07, 9),
        p_t=0.011, p_sign_flip=0.012, p_difference=0.013, p_equal=0.6, p_beyond=0.7,
        test="better", decides=True, detectable=0.08, over_images=(-0.03, 0.23),
        mcnemar_seeds=(1, 3),
    )  # fmt: skip
    return replace(whole, **changes)


def context_of(study: Study, flatness: Flatness | None = None, **changes: Any) -> ClaimContext:
    """Without records."""
    seeds = changes.get("seeds", [0, 1, 2, 3])
    tables = changes.get("predictions", PredictionTables())
    return ClaimContext(study, Records({}), seeds, flatness or {}, tables)


# --- quantities and words ------------------------------------------------------------------


def test_every_quantity_has_its_own_unit_direction_margin_and_words() -> None:
    margins = {"margin_points": 0.2, "margin_nats": 0.03, "margin_flatness": 0.4}
    context = context_of(study_with(2, claims=margins))
    for name, unit, sign, margin, words in (
        ("test accuracy", "points", 1, 0.2, ("better", "worse")),
        ("test loss", "nats", -1, 0.03, ("better", "worse")),
        ("swing of the test accuracy", "points", -1, None, ("steadier", "less steady")),
        ("swing of the test loss", "nats", -1, None, ("steadier", "less steady")),
        ("log of the trace", "", -1, 0.4, ("flatter", "sharper")),
        ("divergence from the ensemble of swa", "nats", -1, 0.03, ("nearer", "farther")),
        ("variance of the predictions over seeds", "", -1, None, ("lower", "higher")),
    ):
        assert context.quantity(name) == Quantity(name, unit, sign, margin, words)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no such quantity: 'test recall'"):
        context.quantity("test recall")


def test_rules_in_words_are_of_the_study_at_hand() -> None:
    margins = {"margin_points": 0.2, "margin_nats": 0.03, "margin_flatness": 0.4}
    fields = context_of(study_with(2, claims={**margins, "transient": 0.25})).fields()
    assert [fields[name] for name in margins] == ["0.2", "0.03", "0.4"]
    assert fields["transient"] == "25%"
    assert (fields["start"], fields["swa"]) == ("adam", "swa")


def test_only_a_final_layer_alone_is_told_to_be_convex() -> None:
    """By what is fine-tuned, whatever was pretrained."""
    heads = load_study("mnist").model_dump()
    finetune = {**heads["finetune"], "trainable": "layer4", "batchnorm": "frozen"}
    network = study_with(2, finetune=finetune)
    words = [context_of(study).fields()["convexity"] for study in (study_with(2), network)]
    assert "convex and has one basin" in words[0]
    assert "may lie in different basins" in words[1]


def test_rates_are_told_to_be_chosen_where_tuning_chose_them() -> None:
    content = load_study("mnist-tuned").model_dump()
    content["tuning"]["chosen"] = None
    untuned = context_of(Study.model_validate(content)).fields()["rates_chosen"]
    sides = {"averaging": "swa", "annealed": "sgd-linear"}
    content["tuning"]["chosen"] = {"search_space": "", "seeds": [], "families": {}, "sides": sides}
    fields = context_of(Study.model_validate(content)).fields()
    assert fields["rates_chosen"] == "Rates are those that tuning chose."
    assert "no rate was chosen" in untuned
    assert untuned == context_of(study_with(2)).fields()["rates_chosen"]
    assert (fields["averaging_side"], fields["annealed_side"]) == ("swa", "sgd-linear")
    assert fields["best_trial"] == "lowest validation loss"
    content["tuning"]["chosen_by"] = "accuracy"
    fields = context_of(Study.model_validate(content)).fields()
    assert fields["best_trial"] == "highest validation accuracy"


def test_images_are_compared_for_the_pairs_whose_results_are() -> None:
    study = study_with(2, rate_sweep=None, controls=the_controls())
    averages, decays = ("swa", "swa-cyclical"), ("sgd", "sgd-multiplicative")
    expected = {
        *((name, "adam") for name in (*study.methods, "adam-longer")),
        *((name, "adam-longer") for name in study.methods),
        *((name, other) for name in averages for other in decays),
        ("pswa", "swa-cyclical"),
        ("pswa-without-start", "swa-cyclical-last-phase"),
        ("swa-cyclical-last-phase", "swa-cyclical-without-start"),
        *((f"swa-score-weighted{power}", "swa-without-start") for power in ("", "-100", "-1000")),
    }
    found = pairs_compared(study)
    assert set(found) == expected
    assert len(found) == len(expected)
    fewer = pairs_compared(study_with(2, rate_sweep=None))
    assert set(fewer) == {pair for pair in expected if {*pair} <= {"adam", *study.methods}}


@pytest.mark.parametrize(
    ("methods", "swept"), [(["sgd", "swa"], True), (["sgd"], False), (["swa", "pswa"], False)]
)
def test_a_sweep_serves_the_claim_if_it_is_of_both(methods: list[str], swept: bool) -> None:
    rates = [0.0025, 0.02]
    methods = [name for name in methods if name != "pswa"] + (["plain"] if "pswa" in methods else [])  # noqa: E501  # fmt: skip
    rows = load_study("mnist").model_dump()["methods"]
    rows["plain"] = {**rows["sgd"], "title": "Another", "paper_accuracy": None}
    study = study_with(2, methods=rows, rate_sweep={"methods": methods, "rates": rates})
    expected = [f"{name}-rate-{rate:g}" for name in methods for rate in rates]
    assert sorted(sweep_runs(study)) == (sorted(expected) if swept else [])


def test_what_else_is_swept_is_no_part_of_the_claim() -> None:
    rows = load_study("mnist").model_dump()["methods"]
    rows["plain"] = {**rows["sgd"], "title": "Another", "paper_accuracy": None}
    sweep = {"methods": ["sgd", "plain", "swa"], "rates": [0.0025, 0.02]}
    found = sweep_runs(study_with(2, methods=rows, rate_sweep=sweep))
    assert len(found) == 4
    assert not [run for run in found if run.startswith("plain")]


# --- which values --------------------------------------------------------------------------


@pytest.mark.parametrize(("epochs", "there"), [(3, True), (2, False)])
def test_of_a_single_change_there_is_no_swing(tmp_path: Path, epochs: int, there: bool) -> None:
    whole = study_with(1, rate_sweep=None).model_dump()
    methods = {name: whole["methods"][name] for name in ("sgd", "swa")}
    study = study_with(
        1,
        rate_sweep=None,
        methods=methods,
        finetune={**whole["finetune"], "epochs": epochs},
    )
    store = write_study(tmp_path, study)
    context = ClaimContext(study, collect(study, store, [0], ["sgd"]), [0], {}, PredictionTables())
    found = context.values("swing of the test loss", "sgd", None)
    losses = [m.loss for m in record_of(store, "sgd", 0).history if m.split == "test"]
    assert len(losses) == epochs
    assert found == ({0: pytest.approx(np.diff(losses).std(ddof=1))} if there else {})


def test_flatness_counts_at_the_seeds_that_were_asked_for() -> None:
    flatness = {"trace": {"sgd": {0: 1.0, 1: math.e, 2: -1.0, 9: 4.0}}}
    context = context_of(study_with(2), flatness, seeds=[0, 1, 2])
    assert context.values("log of the trace", "sgd", None) == {0: 0.0, 1: 1.0}


# --- findings and notes --------------------------------------------------------------------


def test_comparisons_that_say_the_same_are_told_together() -> None:
    better: dict[str, Any] = {"p_difference": 0.01, "p_beyond": 0.01}
    told = decide._findings(
        [
            evidence("a − c", **better),
            evidence("b − c", **better),
            evidence("shown", decides=False),
            evidence("d − c", p_difference=0.4),
        ],
        0.05,
    )
    assert told == (
        "a − c and b − c: better, by more than 0.15 points (in test accuracy). "
        "d − c: open (in test accuracy)."
    )
    assert decide._findings([evidence(decides=False)], 0.05).startswith("Nothing measured here")


def test_another_measure_that_disagrees_is_noted() -> None:
    equal = evidence(quantity=RAYS, p_difference=0.4, p_equal=0.01)
    beyond: dict[str, Any] = {"p_difference": 0.01, "p_beyond": 0.01, "decides": False}
    line = replace(RAYS, name="log of the rise along the line")
    other = evidence(quantity=line, **beyond)
    (note,) = decide._other_measures([equal, other], 0.05)
    assert note == (
        "Another measure says otherwise: a − b: sharper, by more than 0.1 "
        "(in log of the rise along the line)."
    )
    # Not of another pair, not where the deciding one says so too, nor where it is open.
    assert decide._other_measures([equal, replace(other, comparison="c − b")], 0.05) == []
    far = replace(equal, p_beyond=0.01)
    assert decide._other_measures([far, other], 0.05) == []
    assert decide._other_measures([equal, replace(other, p_beyond=0.4)], 0.05) == []
    assert decide._other_measures([equal, replace(other, quantity=POINTS)], 0.05) == []


@pytest.mark.parametrize(
    ("seeds", "end"),
    [((), "at 0 of 4 seeds."), ((1, 3), "at 2 of 4 seeds (1, 3)."), ((0, 1, 2, 3), "at 4 of 4 seeds.")],  # noqa: E501
)  # fmt: skip
def test_seeds_at_which_two_models_are_told_apart_are_named(
    seeds: tuple[int, ...], end: str
) -> None:
    context = context_of(study_with(4, claims={"alpha": 0.03}))
    told = decide._mcnemar_notes(
        [evidence(mcnemar_seeds=seeds), evidence("c − d", mcnemar_seeds=None)], context
    )
    assert told == [f"a − b: seed by seed, McNemar's mid-p is at most 0.03 {end}"]


def test_tests_that_disagree_are_noted_where_the_comparison_decides() -> None:
    apart = evidence(p_t=0.02, p_sign_flip=0.07)
    told = decide._disagreements([apart, replace(apart, decides=False), evidence()], 0.05)
    assert told == [
        "a − b: the t test (p 0.02) and the sign-flip test (p 0.07) disagree about a difference."
    ]


SQUARES = MeanSquares(4, 50, 0.2, 3.0, 2.0, 1.0)


def test_what_images_add_is_of_the_pair_and_the_quantity() -> None:
    pair, turned = ("swa", "sgd"), ("sgd", "swa")
    # Of 8 images that one alone gets right 8 to 0 is told apart, and 4 to 4 is not.
    counts = {0: (8, 0), 1: (4, 4), 2: (0, 8), 3: (0, 0)}
    tables = PredictionTables(
        mcnemar={pair: counts, turned: {0: (9, 0)}},
        pairs={
            (*pair, "accuracy"): SQUARES,
            (*pair, "loss"): replace(SQUARES, mean=0.5),
            (*turned, "accuracy"): replace(SQUARES, mean=-0.2),
        },
    )
    context = context_of(study_with(4, confidence=0.8), predictions=tables)
    bare = evidence(over_images=None, mcnemar_seeds=None)
    found = decide._with_images(bare, pair, "test accuracy", context)
    assert found.over_images == crossed_interval(SQUARES, 0.8)
    assert found.mcnemar_seeds == (0, 2)
    of_loss = decide._with_images(bare, pair, "test loss", context)
    assert of_loss.over_images == crossed_interval(replace(SQUARES, mean=0.5), 0.8)
    assert of_loss.mcnemar_seeds is None
    shown = decide._with_images(replace(bare, decides=False), pair, "test accuracy", context)
    assert shown.mcnemar_seeds is None
    assert decide._with_images(bare, ("swa", "adam"), "test accuracy", context) == bare
    strict = context_of(study_with(4, claims={"alpha": 0.001}), predictions=tables)
    assert decide._with_images(bare, pair, "test accuracy", strict).mcnemar_seeds == ()


# --- verdicts and tests --------------------------------------------------------------------


def test_better_within_the_margin_beside_equal_settles_nothing() -> None:
    """One of the two is a difference: so it is not that there is none."""
    equal = evidence(p_difference=0.5, p_equal=0.01)
    better = evidence(p_difference=0.01, p_equal=0.01)
    assert judge([equal, equal], 0.05) == "equal"
    assert judge([equal, better], 0.05) == "open"


def test_pairs_are_made_by_seed_whatever_their_order() -> None:
    compare = Comparer(study_with(3))
    a, b = {0: 1.0, 1: 2.0, 2: 4.0}, {2: 3.0, 0: 1.5, 1: 1.0}
    assert compare("a − b", POINTS, a, b) == compare("a − b", POINTS, a, dict(sorted(b.items())))
    assert compare("a − b", POINTS, a, b).estimate.deviation == pytest.approx(
        np.std([-0.5, 1, 1], ddof=1)
    )


def test_signs_drawn_for_one_comparison_move_no_other() -> None:
    values = dict(enumerate(np.random.default_rng(3).normal(0.3, 1, 20).tolist()))
    zeros = dict.fromkeys(values, 0.0)
    compare = Comparer(study_with(20))
    first = compare("a − b", POINTS, values, zeros)
    assert 0 < first.p_sign_flip < 1
    assert compare("a − b", POINTS, values, zeros) == first


def test_signs_of_many_seeds_are_drawn_by_the_rules_seed() -> None:
    values = dict(enumerate(np.random.default_rng(3).normal(0.3, 1, 20).tolist()))
    zeros = dict.fromkeys(values, 0.0)

    def found(seed: int) -> float:
        study = study_with(20, claims={"sign_flip_seed": seed})
        return context_of(study).compare("a − b", POINTS, values, zeros).p_sign_flip

    expected = sign_flip_p([*values.values()], np.random.default_rng(5))
    assert found(5) == found(5) == expected
    assert found(6) != expected
    paired = compare_paired([*values.values()], [0.0] * 20, rng=np.random.default_rng(5))
    assert paired.p_sign_flip == expected


def test_differences_that_are_all_zero_have_an_interval_of_no_width() -> None:
    assert crossed_interval(MeanSquares(4, 50, 0.0, 0.0, 0.0, 0.0)) == (0.0, 0.0)
    # Fewer images than two are no draw of images.
    assert all(map(math.isnan, crossed_interval(MeanSquares(4, 1, 0.1, 0.2, math.nan, math.nan))))


def test_a_rise_is_measured_as_far_as_the_nearer_end() -> None:
    at = pd.Series(np.linspace(0, 3, 601))
    # Around 1 that is from 0 to 2, although the line goes on to 3: the mean of u² over ±1 is 1/3.
    assert mean_rise(at, 0.5 + (at - 1) ** 2, 1) == pytest.approx(1 / 3, rel=1e-3)


# --- predictions ---------------------------------------------------------------------------

FEW = ("adam", "sgd", "swa", "swa-cyclical")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Four runs at three seeds, whose test images tell them apart; of one a seed lacks."""
    study = study_with(3, rate_sweep=None)
    store = write_study(
        tmp_path_factory.mktemp("few"),
        study,
        without=[(name, s) for name in study.run_names for s in study.seeds],
    )
    truths = {"adam": Truth(accuracy=80), "swa": Truth(average_noise=2.5)}
    for name in FEW:
        for seed in range(3):
            if (name, seed) != ("swa-cyclical", 2):
                write_run(store, study, name, seed, truths.get(name, Truth(average_noise=2)))
    return collect(study, store, [0, 1, 2], FEW)


@pytest.fixture(scope="module")
def tables(few: Records) -> PredictionTables:
    pairs = [("sgd", "adam"), ("swa-cyclical", "sgd")]
    ensembles = ["swa", "swa-cyclical"]
    return tables_of_predictions(few, [0, 1, 2], pairs=pairs, ensembles=ensembles, rows=FEW)


def predictions(few: Records, name: str, seed: int, predictor: str = "") -> np.ndarray:
    record = few[name][seed]
    found = record.arrays()[f"log_probabilities/{predictor or record.result}/test"]
    return found.astype(np.float64)


def test_images_are_counted_for_the_one_that_gets_them_right(
    few: Records, tables: PredictionTables
) -> None:
    for pair, seeds in ((("sgd", "adam"), (0, 1, 2)), (("swa-cyclical", "sgd"), (0, 1))):
        counts, differences = {}, []
        for seed in seeds:
            labels = few[pair[0]][seed].arrays()["labels/test"]
            one, other = (predictions(few, name, seed).argmax(1) == labels for name in pair)
            counts[seed] = (int((one & ~other).sum()), int((other & ~one).sum()))
            differences.append(100.0 * one - 100.0 * other)
        assert tables.mcnemar[pair] == counts
        squares = tables.pairs[(*pair, "accuracy")]
        assert (squares.seeds, squares.images) == (len(seeds), 400)
        assert squares.mean == pytest.approx(np.mean(differences))
    assert all(a > 10 * b for a, b in tables.mcnemar["sgd", "adam"].values())


def test_every_row_is_held_against_every_ensemble(few: Records, tables: PredictionTables) -> None:
    measure = "divergence from the ensemble of "
    found = {key: values for key, values in tables.numbers.items() if key[0].startswith(measure)}
    expected = {}
    for name, seeds in (("swa", (0, 1, 2)), ("swa-cyclical", (0, 1))):
        sides = [(name, "iterate"), (name, "average")]
        sides += [(other, few[other][0].result) for other in FEW if other != name]
        for other, predictor in sides:
            own = {}
            for seed in seeds:
                if seed not in few[other]:
                    continue
                p, q = predictions(few, name, seed, "ensemble"), predictions(few, other, seed, predictor)  # noqa: E501  # fmt: skip
                own[seed] = float(np.mean((np.exp(p) * (p - q)).sum(1)))
            expected[measure + name, other, predictor] = own
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values), key  # type: ignore[index]


def test_a_seeds_predictions_are_held_against_the_other_seeds_that_are_there(
    few: Records, tables: PredictionTables
) -> None:
    measure = "variance of the predictions over seeds"
    keys = {(name, p) for m, name, p in tables.numbers if m == measure}
    averages = {(name, "average") for name in ("swa", "swa-cyclical")}
    assert keys == {(name, "iterate") for name in FEW} | averages
    for name, predictor in keys:
        every = {s: np.exp(predictions(few, name, s, predictor)) for s in few[name]}
        expected = {
            s: np.square(own - np.mean([v for t, v in every.items() if t != s], axis=0))
            .sum(1)
            .mean()
            for s, own in every.items()
        }
        assert tables.numbers[measure, name, predictor] == pytest.approx(expected)


def test_of_one_seed_there_is_no_variance(few: Records) -> None:
    found = tables_of_predictions(few, [1], pairs=[], ensembles=["swa"], rows=FEW)
    assert {measure for measure, *_ in found.numbers} == {"divergence from the ensemble of swa"}


def test_what_is_published_of_predictions_is_what_was_computed() -> None:
    squares = MeanSquares(3, 40, 0.5, 1.5, 2.5, 3.5)
    found = PredictionTables(
        numbers={("some measure", "swa", "average"): {4: 0.25, 7: 0.5}},
        mcnemar={("swa", "sgd"): {4: (3, 5)}},
        pairs={("swa", "sgd", "loss"): squares},
    )
    assert found.numbers_frame().to_dict(orient="records") == [
        {"measure": "some measure", "method": "swa", "predictor": "average", "seed": s, "value": v}
        for s, v in ((4, 0.25), (7, 0.5))
    ]
    (counts,) = found.mcnemar_frame().to_dict(orient="records")
    assert counts == {
        "method": "swa", "other": "sgd", "seed": 4, "only_method": 3, "only_other": 5
    }  # fmt: skip
    (pair,) = found.pairs_frame().to_dict(orient="records")
    assert pair == {
        "method": "swa", "other": "sgd", "measure": "loss", "seeds": 3, "images": 40, "mean": 0.5,
        "ms_seeds": 1.5, "ms_images": 2.5, "ms_residual": 3.5,
    }  # fmt: skip


def test_what_disagrees_with_a_verdict_stands_in_its_notes(few: Records) -> None:
    """Another measure of flatness, and the sign-flip test beside the t test."""
    study = study_with(3, rate_sweep=None, claims={"alpha": 0.3})
    sgd = {0: 1.0, 1: 1.2, 2: 1.4}
    # Their mean is 0.6: of eight patterns of signs four are as far from zero, p is 0.5.
    logs = {0: 1.0, 1: 1.0, 2: -0.2}
    rays = {seed: value * math.exp(logs[seed]) for seed, value in sgd.items()}
    line = {seed: value * (9 + seed / 10) for seed, value in sgd.items()}
    flatness: Flatness = {
        "mean rise of the train loss along random rays": {"sgd": sgd, "swa": rays},
        "trace": {"sgd": sgd, "swa": line},
    }
    context = ClaimContext(study, few, [0, 1, 2], flatness, PredictionTables())
    claim = decide._decide("C4", claim_specs()["C4"], context)
    told = " ".join(claim.notes)
    assert "Another measure says otherwise: swa − sgd: sharper, by more than 0.1 (in log of the trace)" in told  # noqa: E501  # fmt: skip
    assert "swa − sgd: the t test (p 0.27) and the sign-flip test (p 0.5) disagree" in told


# --- files and words -----------------------------------------------------------------------


def claim_of(*of: Evidence) -> Claim:
    return Claim("C9", "it is", "Is it?", "By this.", "open", "Of that.", of, ("A note.",))


def test_every_column_of_the_evidence_holds_its_own_number() -> None:
    study = study_with(9, claims={"alpha": 0.012})
    nothing = replace(claim_of(), key="C8", verdict="not measured")
    control = evidence("c − d", test=None, decides=False, control=True, over_images=None,
                       mcnemar_seeds=None)  # fmt: skip
    frame = claims_text.evidence_frame([nothing, claim_of(evidence(), control)], study)
    lacking, first, second = frame.to_dict(orient="records")
    expected = {
        "claim": "C9", "verdict": "open", "comparison": "a − b", "measure": "test accuracy",
        "unit": "points", "test": "better", "decides": True, "margin": 0.15,
        "finding": "open",  # at a level of 0.012
        "difference": 0.1, "low": 0.02, "high": 0.18, "low_over_images": -0.03,
        "high_over_images": 0.23, "deviation": 0.07, "seeds": "9", "p_t": 0.011,
        "p_sign_flip": 0.012, "p_difference": 0.013, "p_equal": 0.6, "p_beyond": 0.7,
        "detectable": 0.08, "mcnemar_seeds": "1 3",
    }  # fmt: skip
    assert {key: first[key] for key in expected} == expected
    assert first.keys() == expected.keys()
    assert (second["comparison"], second["decides"]) == ("c − d", False)
    assert pd.isna(second["low_over_images"])
    assert pd.isna(second["mcnemar_seeds"])
    assert (lacking["claim"], lacking["verdict"], lacking["seeds"]) == ("C8", "not measured", "0")
    assert pd.isna(lacking["comparison"])


def test_claims_for_programs_have_all_that_is_known() -> None:
    (found,) = claims_text.for_programs([claim_of(evidence())], study_with(9))
    told = {key: found[key] for key in ("key", "statement", "question", "rule", "verdict", "reason")}  # noqa: E501  # fmt: skip
    assert [*told.values()] == ["C9", "it is", "Is it?", "By this.", "open", "Of that."]
    assert list(found["notes"]) == ["A note."]
    (own,) = found["evidence"]
    assert own["finding"] == "better; whether by more than 0.15 points is open"
    assert own["quantity"]["margin"] == 0.15
    assert own["estimate"] == {"mean": 0.1, "low": 0.02, "high": 0.18, "deviation": 0.07, "n": 9}
    assert (own["p_equal"], own["p_beyond"], own["mcnemar_seeds"]) == (0.6, 0.7, (1, 3))


def test_one_seeds_evidence_shows_no_interval_and_no_p() -> None:
    nan = math.nan
    alone = evidence(
        estimate=Estimate(0.1, nan, nan, nan, 1), p_t=nan, p_sign_flip=1.0, p_difference=nan,
        p_equal=nan, p_beyond=nan, detectable=nan, over_images=(nan, nan),
    )  # fmt: skip
    (row,) = claims_text.presentable_evidence(claim_of(alone), study_with(1)).to_dict("records")
    assert row["Mean [95 %]"] == "+0.100 points"
    assert (row["Seeds"], row["Finding"], row["p (sign-flip)"]) == (1, "open", "1.00")
    blank: Mapping[Any, str] = {name: value for name, value in row.items() if value == "—"}
    assert set(blank) == {
        "p (t)", "p (difference)", "p (equal)", "p (beyond)", "Detectable from zero",
        "[95 %] over images too",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0009, "< 0.001"), (0.001, "0.001"), (0.0494, "0.049"), (0.0996, "0.10"),
        (0.154, "0.15"), (1.0, "1.00"), (math.nan, "—"),
    ],
)  # fmt: skip
def test_p_values_are_shown_with_two_digits(value: float, shown: str) -> None:
    assert claims_text.p_value(value) == shown
