"""Settings: what a study gets that leaves them out, what they take, and what they refuse.

Written out once more, because a default or a limit that slips changes what a study means and
nothing else would tell.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from swabench.study.averaging import (
    BasePlan,
    EqualMean,
    Exponential,
    GreedySoup,
    LastCaptures,
    Newest,
    ScoreWeighted,
)
from swabench.study.inputs import BackboneSettings, DataSettings, RunOfStudy
from swabench.study.landscape import (
    HessianSettings,
    LandscapeSettings,
    LineSettings,
    PlaneSettings,
    RaySettings,
    SharpnessSettings,
)
from swabench.study.methods import Method
from swabench.study.optimizers import SGD, Adam, Lookahead, ScheduleFreeSGD
from swabench.study.rules import ClaimRules
from swabench.study.schedules import (
    BaseSchedule,
    Constant,
    Cosine,
    Cyclical,
    Linear,
    Multiplicative,
    Triangular,
)
from swabench.study.settings import Settings
from swabench.study.stages import Pretraining, Stage
from swabench.study.study import Study
from swabench.study.sweep import RateSweep
from swabench.study.tuning import Choice, Choices, Tuning

RATE = Constant(schedule="constant", learning_rate=0.1)
METHOD = Method(title="", rate=RATE)

# What must be named of each kind of settings.
NAMED: dict[type[Settings], dict[str, Any]] = {
    EqualMean: {},
    Exponential: {"plan": "exponential", "half_life_epochs": 2},
    LastCaptures: {"plan": "last", "captures": 2},
    ScoreWeighted: {"plan": "score-weighted"},
    GreedySoup: {"plan": "greedy-soup"},
    Newest: {"plan": "newest"},
    Constant: {"schedule": "constant", "learning_rate": 0.1},
    Multiplicative: {
        "schedule": "multiplicative",
        "learning_rate": 0.1,
        "factor": 0.5,
        "every_epochs": 2,
    },
    Linear: {"schedule": "linear", "learning_rate": 0.1},
    Cosine: {"schedule": "cosine", "learning_rate": 0.1},
    Cyclical: {"schedule": "cyclical", "high": 0.2, "low": 0.1},
    Triangular: {
        "schedule": "triangular",
        "low": 0.1,
        "high": 0.2,
        "up_epochs": 1,
        "down_epochs": 2,
    },
    SGD: {"name": "sgd"},
    Adam: {"name": "adam"},
    ScheduleFreeSGD: {"name": "schedule-free-sgd"},
    Lookahead: {"name": "lookahead"},
    Method: {"title": "", "rate": RATE},
    LineSettings: {},
    PlaneSettings: {},
    RaySettings: {},
    SharpnessSettings: {},
    HessianSettings: {},
    LandscapeSettings: {},
    ClaimRules: {},
    DataSettings: {},
    RunOfStudy: {"study": "mnist", "method": "sgd"},
    BackboneSettings: {},
    Stage: {"epochs": 1, "optimizer": SGD(name="sgd")},
    Pretraining: {"epochs": 1, "optimizer": SGD(name="sgd"), "rate": RATE},
    RateSweep: {"methods": ("sgd",), "rates": (0.1,)},
    Choice: {"settings": {"a": 1}, "loss": 0.1, "trials": 1},
    Choices: {"search_space": "0", "seeds": (1,), "families": {}},
    Tuning: {"seeds": (5,), "trials_per_family": 1, "families": {"sgd": {"rate": (1,)}}},
    Study: {
        "name": "small",
        "title": "",
        "pretrain": {"epochs": 1, "optimizer": {"name": "adam"}, "rate": RATE},
        "finetune": {"epochs": 1, "optimizer": {"name": "sgd"}},
        "methods": {"sgd": METHOD},
        "seeds": 1,
    },
}

PLAN = {"capture_every_epochs": 1, "start_at_epoch": 0, "phases": 1, "ensemble": None}
RAMPS = {"warmup_epochs": 0, "cooldown_epochs": 0}
BASE_SGD = {"momentum": 0.9, "weight_decay": 0, "nesterov": False}
STAGE = {
    "trainable": "head",
    "batch_size": 128,
    "batchnorm": "train",
    "precision": "float32",
    "evaluation_batch_size": 1000,
    "keep_weights": "result",
    "score_every_epochs": 1,
}
LINES = {"seeds": None, "low": -3, "high": 3, "points": 31}
SEGMENTS = {"seeds": 3, "low": -1, "high": 2, "points": 31}
PLANE = {"seeds": None, "method": None, "points": 25, "margin": 0.4}
RAYS = {"seeds": None, "directions": 10, "points": 11, "length": 20}
SHARPNESS = {"seeds": None, "epsilons": (1e-3, 5e-4), "starts": 2, "steps": 20}
HESSIAN = {"seeds": None, "probes": 32, "tolerance": 1e-3}
LANDSCAPE = {
    "training_images": 10_000,
    "test_images": None,
    "methods": None,
    "seed": 0,
    "lines": LINES,
    "segments": SEGMENTS,
    "plane": {**PLANE, "seeds": 1},
    "rays": RAYS,
    "sharpness": {**SHARPNESS, "seeds": 4},
    "hessian": {**HESSIAN, "seeds": 1},
}
CLAIMS = {
    "margin_points": 0.15,
    "margin_nats": 0.005,
    "margin_flatness": 0.1,
    "alpha": 0.05,
    "power": 0.8,
    "transient": 1 / 3,
    "sgd": "sgd",
    "decayed": "sgd-multiplicative",
    "swa": "swa",
    "swa_cyclical": "swa-cyclical",
    "pswa": "pswa",
    "adam_longer": "adam-longer",
    "swa_without_start": "swa-without-start",
    "swa_cyclical_without_start": "swa-cyclical-without-start",
    "pswa_without_start": "pswa-without-start",
    "last_phase": "swa-cyclical-last-phase",
    "score_weighted": "swa-score-weighted",
    "score_weighted_100": "swa-score-weighted-100",
    "score_weighted_1000": "swa-score-weighted-1000",
    "sign_flip_seed": 0,
}
DATA = {
    "dataset": "mnist",
    "folder": None,
    "image_size": 28,
    "validation_images": 5000,
    "selection_images": 0,
    "split_seed": 0,
    "normalization": "dataset",
    "training_images": None,
    "test_images": None,
}
BACKBONE = {
    "weights": "random",
    "reestimate_batchnorm": False,
    "zero_init_residual": False,
    "seed": 0,
    "standardize_features": True,
    "precision": "float32",
    "cache_features": True,
}
DEFAULTS: dict[type[Settings], dict[str, Any]] = {
    EqualMean: {**PLAN, "plan": "mean", "include_start": True},
    Exponential: {**PLAN, "debias": True},
    LastCaptures: PLAN,
    ScoreWeighted: {**PLAN, "power": 1},
    GreedySoup: PLAN,
    Newest: PLAN,
    Constant: RAMPS,
    Multiplicative: RAMPS,
    Linear: RAMPS,
    Cosine: RAMPS,
    Cyclical: {**RAMPS, "cycle_epochs": 1},
    Triangular: RAMPS,
    SGD: BASE_SGD,
    Adam: {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0},
    ScheduleFreeSGD: {"momentum": 0.9, "weight_decay": 0},
    Lookahead: {**BASE_SGD, "steps": 5, "alpha": 0.5},
    Method: {"averaging": None, "optimizer": None, "paper_accuracy": None},
    LineSettings: LINES,
    PlaneSettings: PLANE,
    RaySettings: RAYS,
    SharpnessSettings: SHARPNESS,
    HessianSettings: HESSIAN,
    LandscapeSettings: LANDSCAPE,
    ClaimRules: CLAIMS,
    DataSettings: DATA,
    RunOfStudy: {"seed": 0},
    BackboneSettings: BACKBONE,
    Stage: STAGE,
    Pretraining: {
        **STAGE,
        "name": "adam",
        "title": "Adam alone, not fine-tuned",
        "paper_accuracy": None,
        "minimum_accuracy": None,
    },
    RateSweep: {},
    Choice: {"standard_error": None, "at_edge": ()},
    Choices: {"sides": {}},
    Tuning: {"sides": {}, "chosen_by": "loss", "chosen": None},
    Study: {
        "data": DATA,
        "backbone": BACKBONE,
        "controls": {},
        "seed_draws": ("head", "order"),
        "one_source_at_a_time": False,
        "reference": "sgd",
        "confidence": 0.95,
        "rate_sweep": None,
        "claims": CLAIMS,
        "landscape": LANDSCAPE,
        "tuning": None,
        "diverged": "fail",
        "mixed_hardware": "refuse",
    },
}


@pytest.mark.parametrize("kind", NAMED, ids=lambda kind: kind.__name__)
def test_what_a_study_leaves_out_has_its_default(kind: type[Settings]) -> None:
    found = kind.model_validate(NAMED[kind]).model_dump()
    left_out = {key: value for key, value in found.items() if key not in NAMED[kind]}
    assert left_out == DEFAULTS[kind]


def kinds(of: type[Settings]) -> Iterator[type[Settings]]:
    for kind in of.__subclasses__():
        if kind.__module__.startswith("swabench."):
            yield kind
            yield from kinds(kind)


def test_every_kind_of_settings_is_written_out_here() -> None:
    # Those that other tests derive are none of the product's.
    bases = {kind for kind in kinds(Settings) if list(kinds(kind))} - {Stage}
    assert set(kinds(Settings)) - bases == NAMED.keys()


NO_COUNT = [0, -1, 2.5, True, "2"]
NO_SEED = [-1, 2**32, 1.5, True]
NO_FLAG = [1, "yes"]
NO_SPAN = [0, -1, float("nan"), float("inf")]
PLANS = (EqualMean, Exponential, LastCaptures, ScoreWeighted, GreedySoup, Newest)
SCHEDULES = (Constant, Multiplicative, Linear, Cosine, Cyclical, Triangular)
# Of each setting what is taken and what is refused, from the edge on.
LIMITS: list[tuple[tuple[type[Settings], ...], str, list[Any], list[Any]]] = [
    (PLANS, "capture_every_epochs", [0.1, "5e-1"], NO_SPAN),
    (PLANS, "start_at_epoch", [0, 0.5], [-0.1]),
    (PLANS, "ensemble", [True, False, None], NO_FLAG),
    ((*PLANS[:4], Newest), "phases", [1, 3], NO_COUNT),
    ((GreedySoup,), "phases", [1], [2]),
    ((EqualMean,), "include_start", [True, False], NO_FLAG),
    ((Exponential,), "debias", [True, False], NO_FLAG),
    ((Exponential,), "half_life_epochs", [0.1], NO_SPAN),
    ((LastCaptures,), "captures", [1], NO_COUNT),
    ((ScoreWeighted,), "power", [0, 1e6], [-0.1, 1.1e6]),
    (SCHEDULES, "warmup_epochs", [0, 0.5], [-0.1]),
    (SCHEDULES, "cooldown_epochs", [0, 0.5], [-0.1]),
    ((Constant, Multiplicative, Linear, Cosine), "learning_rate", [1e-9, "1e-3"], [0, True]),
    ((Multiplicative,), "factor", [1e-9, 1], [0, 1.001]),
    ((Multiplicative,), "every_epochs", [1], NO_COUNT),
    ((Cyclical,), "high", [0.1, 5], [0.099]),
    ((Cyclical, Triangular), "low", [1e-9, 0.2], [0, 0.201, True]),
    ((Cyclical,), "cycle_epochs", [0.1], NO_SPAN),
    ((Triangular,), "up_epochs", [1], NO_COUNT),
    ((Triangular,), "down_epochs", [1], NO_COUNT),
    ((SGD, Lookahead, Adam, ScheduleFreeSGD), "weight_decay", [0, 1.5], [-0.1]),
    ((SGD, Lookahead), "momentum", [0, 0.999], [-0.1, 1]),
    ((SGD, Lookahead), "nesterov", [True, False], NO_FLAG),
    ((Adam,), "beta1", [0, 0.999], [-0.1, 1]),
    ((Adam,), "beta2", [0, 0.999], [-0.1, 1]),
    ((ScheduleFreeSGD,), "momentum", [0.001, 0.999], [0, 1]),
    ((Lookahead,), "steps", [1], NO_COUNT),
    ((Lookahead,), "alpha", [0.001, 1], [0, 1.001]),
    ((LineSettings,), "seeds", [None, 1], NO_COUNT),
    ((LineSettings,), "low", [0, -5], [0.1]),
    ((LineSettings,), "high", [1, 5], [0.9]),
    ((LineSettings, PlaneSettings, RaySettings), "points", [2], [1, 0, 2.5, True]),
    ((PlaneSettings,), "margin", [0, 2], [-0.1]),
    ((RaySettings,), "directions", [1], NO_COUNT),
    ((RaySettings,), "length", [0.1], [0, -1]),
    ((SharpnessSettings,), "epsilons", [[1e-9]], [[], [0], [1e-3, -1]]),
    ((SharpnessSettings,), "starts", [1], NO_COUNT),
    ((SharpnessSettings,), "steps", [1], NO_COUNT),
    ((HessianSettings,), "probes", [2], [1, 2.5]),
    ((HessianSettings,), "tolerance", [1e-9, 0.999], [0, 1]),
    ((LandscapeSettings,), "training_images", [1], NO_COUNT),
    ((LandscapeSettings,), "test_images", [None, 1], NO_COUNT),
    ((LandscapeSettings,), "methods", [None, ["sgd"]], [["../sgd"]]),
    ((LandscapeSettings,), "seed", [0, 2**32 - 1], NO_SEED),
    ((ClaimRules,), "margin_points", [1e-9], [0, -1]),
    ((ClaimRules,), "margin_nats", [1e-9], [0, -1]),
    ((ClaimRules,), "margin_flatness", [1e-9], [0, -1]),
    ((ClaimRules,), "alpha", [1e-9, 0.499], [0, 0.5]),
    ((ClaimRules,), "power", [0.501, 0.999], [0.5, 1]),
    ((ClaimRules,), "transient", [0, 0.5], [-0.1, 0.501]),
    ((ClaimRules,), "sign_flip_seed", [0, 2**32 - 1], NO_SEED),
    ((DataSettings,), "image_size", [8], [7, 28.5, True]),
    ((DataSettings,), "validation_images", [1], NO_COUNT),
    ((DataSettings,), "selection_images", [0, 4999], [5000, -1, True]),
    ((DataSettings,), "split_seed", [0, 2**32 - 1], NO_SEED),
    ((DataSettings,), "normalization", ["imagenet"], ["none"]),
    ((DataSettings,), "training_images", [None, 1], NO_COUNT),
    ((DataSettings,), "test_images", [None, 1], NO_COUNT),
    ((RunOfStudy,), "method", ["swa-2"], ["a/b"]),
    ((RunOfStudy,), "seed", [0, 2**32 - 1], NO_SEED),
    ((BackboneSettings,), "seed", [0, 2**32 - 1], NO_SEED),
    ((BackboneSettings,), "reestimate_batchnorm", [True], NO_FLAG),
    ((BackboneSettings,), "zero_init_residual", [True], NO_FLAG),
    ((BackboneSettings,), "standardize_features", [False], NO_FLAG),
    ((BackboneSettings,), "cache_features", [False], NO_FLAG),
    ((BackboneSettings, Stage, Pretraining), "precision", ["bfloat16"], ["float16"]),
    ((Stage, Pretraining), "trainable", ["head", "layer4", "all"], ["layer3"]),
    ((Stage, Pretraining), "epochs", [1], NO_COUNT),
    ((Stage, Pretraining), "batch_size", [1], NO_COUNT),
    ((Stage, Pretraining), "batchnorm", ["train", "frozen", "first-epoch"], ["fixed"]),
    ((Stage, Pretraining), "evaluation_batch_size", [2], [1, 2.5]),
    ((Stage, Pretraining), "keep_weights", ["none", "result"], ["all"]),
    ((Stage, Pretraining), "score_every_epochs", [1], NO_COUNT),
    ((Pretraining,), "name", ["a.b-1"], ["", ".a", "-a", "a b", "a/b"]),
    ((Pretraining,), "minimum_accuracy", [0.1, 99.9, None], [0, 100]),
    ((RateSweep,), "methods", [("sgd", "swa")], [(), ("sgd", "sgd")]),
    ((RateSweep,), "rates", [(0.1, 0.2)], [(), (0.1, 0.1), (0,)]),
    ((Tuning,), "seeds", [[5, 6]], [[], [5, 5], [-1], 3]),
    ((Tuning,), "families", [{"sgd": {"a": ["1e-3"]}}], [{}, {"sgd": {}}, {"a/b": {"a": [1]}}]),
    ((Study,), "confidence", [0.501, 0.999], [0.5, 1]),
    ((Study,), "seeds", [1, 10_000, [3, 1]], [0, 10_001, True, [], [1, 1], "1"]),
    ((Study,), "controls", [None, {}, {"other": METHOD}], [{"a/b": METHOD}, {"all": METHOD}]),
    ((Study,), "methods", [{"sgd": METHOD}], [{}]),
    ((Study,), "name", ["a.b-1"], ["", "../a"]),
]
CASES = [(kind, key, taken, refused) for some, key, taken, refused in LIMITS for kind in some]


@pytest.mark.parametrize(
    ("kind", "key", "taken", "refused"), CASES, ids=[f"{k.__name__}.{key}" for k, key, *_ in CASES]
)
def test_a_setting_takes_what_it_can_mean_and_nothing_else(
    kind: type[Settings], key: str, taken: list[Any], refused: list[Any]
) -> None:
    for value in taken:
        kind.model_validate({**NAMED[kind], key: value})
    for value in refused:
        with pytest.raises(ValidationError):
            kind.model_validate({**NAMED[kind], key: value})


@pytest.mark.parametrize("kind", NAMED, ids=lambda kind: kind.__name__)
def test_settings_stay_as_they_are_and_take_no_unknown_key(kind: type[Settings]) -> None:
    settings = kind.model_validate(NAMED[kind])
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, next(iter(kind.model_fields)), None)
    with pytest.raises(ValidationError, match="Extra inputs"):
        kind.model_validate({**NAMED[kind], "unknown": 1})


def test_a_number_of_seeds_stands_for_the_first_ones() -> None:
    assert Study.model_validate({**NAMED[Study], "seeds": 3}).seeds == (0, 1, 2)


# --- in words --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (EqualMean(), "mean, captured every 1 epochs"),
        (
            EqualMean(include_start=False, capture_every_epochs=0.5, start_at_epoch=2, phases=3),
            "mean without the start, captured every 0.5 epochs, from epoch 2, 3 phases",
        ),
        (
            Exponential(plan="exponential", half_life_epochs=2.5),
            "exponential, half-life 2.5 epochs, captured every 1 epochs",
        ),
        (
            Exponential(plan="exponential", half_life_epochs=2, debias=False),
            "exponential, half-life 2 epochs, not debiased, captured every 1 epochs",
        ),
        (
            LastCaptures(plan="last", captures=4, capture_every_epochs=2),
            "mean of the last 4, captured every 2 epochs",
        ),
        (
            ScoreWeighted(plan="score-weighted", power=100),
            "weighted by selection accuracy to the power 100, captured every 1 epochs",
        ),
        (GreedySoup(plan="greedy-soup"), "greedy soup, captured every 1 epochs"),
        (Newest(plan="newest"), "newest only, captured every 1 epochs"),
    ],
)
def test_a_plan_in_words(plan: BasePlan, words: str) -> None:
    assert plan.describe() == words


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (RATE, "constant 0.1"),
        (
            Constant(schedule="constant", learning_rate=0.1, warmup_epochs=2, cooldown_epochs=0.5),
            "constant 0.1, warm-up over 2 epochs, cooldown over the last 0.5",
        ),
        (
            Constant(schedule="constant", learning_rate=0.1, warmup_epochs=2),
            "constant 0.1, warm-up over 2 epochs",
        ),
        (
            Multiplicative(
                schedule="multiplicative", learning_rate=0.1, factor=0.25, every_epochs=5
            ),
            "0.1, times 0.25 every 5 epochs",
        ),
        (
            Linear(schedule="linear", learning_rate=0.1, cooldown_epochs=3),
            "0.1 → 0 in a straight line, cooldown over the last 3",
        ),
        (Cosine(schedule="cosine", learning_rate=0.1), "0.1 → 0 along a cosine"),
        (
            Cyclical(schedule="cyclical", high=0.2, low=0.1, cycle_epochs=2),
            "sawtooth 0.2 → 0.1 every 2 epochs",
        ),
        (
            Triangular(schedule="triangular", low=0.1, high=0.2, up_epochs=1, down_epochs=2),
            "triangle 0.1 ↔ 0.2, up 1 and down 2 epochs",
        ),
    ],
)
def test_a_schedule_in_words(rate: BaseSchedule, words: str) -> None:
    assert rate.describe() == words


def test_a_run_of_another_study_in_words() -> None:
    run = RunOfStudy(study="/somewhere/source.yaml", method="swa", seed=3)
    assert str(run) == "swa at seed 3 of study source"


def test_the_methods_that_a_study_names_itself_are_told_from_those_by_default() -> None:
    rules = ClaimRules(pswa="my-pswa", sgd="sgd")
    assert rules.named_methods == {"pswa": "my-pswa"}
    assert rules.parts["pswa"] == "my-pswa"
    methods = {key: value for key, value in CLAIMS.items() if isinstance(value, str)}
    assert ClaimRules().parts == methods
