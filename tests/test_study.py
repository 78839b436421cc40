"""A study's parts fit together: what does not is refused with its key, what does is taken."""

from typing import Any

import pytest

from swabench.study.landscape import Part
from swabench.study.loading import load_study
from swabench.study.optimizers import SGD
from swabench.study.study import Study
from swabench.study.tuning import Tuning
from swabench.system.errors import InputError

RATE = {"schedule": "constant", "learning_rate": 0.1}
SGD_ROW = {"title": "SGD", "rate": RATE}
SWA_ROW = {"title": "SWA", "rate": RATE, "averaging": {}}
LATE = {"title": "", "rate": RATE, "averaging": {"start_at_epoch": 4}}
SOUP = {"title": "", "rate": RATE, "averaging": {"plan": "greedy-soup"}}
SCORED = {"title": "", "rate": RATE, "averaging": {"plan": "score-weighted"}}
FREE = {"name": "schedule-free-sgd"}
SGD_STAGE = {"epochs": 4, "optimizer": {"name": "sgd"}}
START = {"epochs": 9, "optimizer": {"name": "adam"}, "rate": RATE}
METHODS = {"sgd": SGD_ROW, "swa": SWA_ROW}
SWEEP = {"methods": ["sgd", "swa"], "rates": [0.1, 0.2]}
TUNING = {
    "seeds": [7],
    "trials_per_family": 2,
    "families": {"swa": {"averaging.start_at_epoch": [0, 3]}},
}


def study(**changes: Any) -> Study:
    """Two methods and a control."""
    return Study.model_validate(
        {
            "name": "small",
            "title": "",
            "pretrain": START,
            "finetune": SGD_STAGE,
            "methods": METHODS,
            "controls": {"longer": SGD_ROW},
            "seeds": 2,
            **changes,
        }
    )


def network(pretrain: str, finetune: str, batchnorm: str, **backbone: Any) -> dict[str, Any]:
    return {
        "pretrain": {**START, "trainable": pretrain},
        "finetune": {**SGD_STAGE, "trainable": finetune, "batchnorm": batchnorm},
        "backbone": backbone,
    }


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a method that does not fit fine-tuning": (
        {"methods": {**METHODS, "late": LATE}},
        r"methods\.late\.averaging\.start_at_epoch: 4 leaves",
    ),
    "a control that does not fit fine-tuning": (
        {"controls": {"late": LATE}}, r"controls\.late\.averaging\.start_at_epoch: 4 leaves",
    ),
    "a method that selects without images": (
        {"methods": {**METHODS, "soup": SOUP}},
        r"methods\.soup\.averaging: greedy-soup needs selection images",
    ),
    "a control that selects without images": (
        {"controls": {"scored": SCORED}},
        r"controls\.scored\.averaging: score-weighted needs selection images",
    ),
    "pretraining without a schedule": (
        {"pretrain": {**START, "optimizer": FREE}}, r"pretrain\.optimizer: 'schedule-free-sgd'",
    ),
    "fine-tuning without a schedule": (
        {"finetune": {"epochs": 4, "optimizer": FREE}},
        r"finetune\.optimizer: 'schedule-free-sgd'",
    ),
    "a start that is called like a method": (
        {"pretrain": {**START, "name": "swa"}}, r"pretrain\.name: 'swa' is also a method's name",
    ),
    "a start that is called like a control": (
        {"pretrain": {**START, "name": "longer"}},
        r"pretrain\.name: 'longer' is also a method's name",
    ),
    "a control that is called like a method": (
        {"controls": {"swa": SGD_ROW}}, r"controls: 'swa' is also a method's name",
    ),
    "no method": ({"methods": {}, "reference": "adam"}, r"methods\n.*at least 1 item"),
    "a method called all": ({"methods": {**METHODS, "all": SGD_ROW}}, r"'all' names every method"),
    "a control called all": ({"controls": {"all": SGD_ROW}}, r"'all' names every method"),
    "a reference that is nothing": (
        {"reference": "sga"}, r"reference: unknown method 'sga'; choose from adam, sgd, swa",
    ),
    "a reference that is a control": ({"reference": "longer"}, r"reference: unknown method"),
    "a reference that is a run of the sweep": (
        {"reference": "swa-rate-0.2", "rate_sweep": SWEEP}, r"reference: unknown method",
    ),
    "layers that pretraining trained frozen": (
        network("all", "layer4", "frozen", standardize_features=False),
        r"finetune\.trainable: 'layer4' would freeze layers that pretraining trains \('all'\)",
    ),
    "a head on random weights below training BatchNorm": (
        network("head", "layer4", "train"), r"pretrain\.trainable: 'head' trains on random weights",
    ),
    "the same for one epoch": (
        network("head", "all", "first-epoch"), r"use 'all', set finetune\.batchnorm to frozen",
    ),
    "standardised random features below training BatchNorm": (
        network("layer4", "layer4", "train"), r"backbone\.standardize_features: true would fit",
    ),
    "blocks that begin as nothing and stay frozen": (
        network("layer4", "all", "train", standardize_features=False, zero_init_residual=True),
        r"zero_init_residual: true leaves .* pretrain\.trainable is 'layer4'; set that to all",
    ),
    "the same below a head": (
        network("head", "head", "train", zero_init_residual=True),
        r"pretrain\.trainable is 'head'; set that to all, or set zero_init_residual to false",
    ),
    "blocks that begin as nothing, with weights of their own": (
        network("all", "all", "train", weights="w.pth", zero_init_residual=True),
        r"backbone\.zero_init_residual: true is for random weights",
    ),
    "a sweep's run that is called like the start": (
        {"rate_sweep": SWEEP, "pretrain": {**START, "name": "swa-rate-0.2"}},
        r"rate_sweep: its run 'swa-rate-0\.2' is also the name of another run",
    ),
    "a sweep's run that is called like a control": (
        {"rate_sweep": SWEEP, "controls": {"swa-rate-0.2": SGD_ROW}},
        r"rate_sweep: its run 'swa-rate-0\.2' is also the name of another run",
    ),
    "a sweep's run that is called like a method": (
        {"rate_sweep": SWEEP, "methods": {**METHODS, "swa-rate-0.2": LATE | {"averaging": None}}},
        r"rate_sweep\.rates: 'swa-rate-0\.2', a run of the sweep, is also a method's name",
    ),
    "a sweep of what has no constant rate": (
        {
            "rate_sweep": SWEEP,
            "methods": {**METHODS, "sgd": {"title": "", "rate": {**RATE, "schedule": "linear"}}},
        },
        r"rate_sweep\.methods: 'sgd' has no constant rate",
    ),
    "a claim's method that is nothing": (
        {"claims": {"pswa": "psva"}},
        r"claims\.pswa: unknown method 'psva'; choose from sgd, swa, longer",
    ),
    "a claim's method that is the start": ({"claims": {"sgd": "adam"}}, r"claims\.sgd: unknown"),
    "a landscape of what is nothing": (
        {"landscape": {"methods": ["sga"]}}, r"landscape\.methods: unknown method 'sga'",
    ),
    "a landscape of a control": (
        {"landscape": {"methods": ["longer"]}}, r"landscape\.methods: unknown method 'longer'",
    ),
    "a plane through what is no average": (
        {"landscape": {"plane": {"method": "sgd"}}},
        r"landscape\.plane\.method: unknown averaging method 'sgd'; choose from swa",
    ),
    "a plane where nothing averages": (
        {"landscape": {"plane": {"method": "swa"}}, "methods": {"sgd": SGD_ROW}},
        r"landscape\.plane\.method: unknown averaging method 'swa'; choose from none",
    ),
    "a tuned study of one source at a time": (
        {"tuning": TUNING, "one_source_at_a_time": True},
        r"tuning: a study of one source at a time compares no methods",
    ),
    "a trial that does not fit fine-tuning": (
        {"tuning": {**TUNING, "families": {"swa": {"averaging.start_at_epoch": [0, 4]}}}},
        r"tuning\.families\.swa: start_at_epoch 4: averaging\.start_at_epoch: 4 leaves no capture",
    ),
    "a tuning at the study's seeds": (
        {"tuning": {**TUNING, "seeds": [7, 1]}}, r"tuning\.seeds: 1 among the study's own seeds",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_its_key(name: str) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        study(**changes)


TAKEN: dict[str, dict[str, Any]] = {
    "nothing else": {},
    "blocks that begin as nothing and train": network(
        "all", "all", "train", standardize_features=False, zero_init_residual=True
    ),
    "captures that fit fine-tuning and not pretraining": {
        "pretrain": {**START, "epochs": 1},
        "methods": {**METHODS, "late": {**LATE, "averaging": {"start_at_epoch": 3}}},
    },
    "averages that select, with images": {
        "data": {"selection_images": 10},
        "methods": {**METHODS, "soup": SOUP},
        "controls": {"scored": SCORED},
    },
    "a single method without a schedule": {
        "methods": {**METHODS, "free": {**SGD_ROW, "optimizer": FREE}},
    },
    "the start as the reference": {"reference": "adam"},
    "more layers than pretraining trains": network("layer4", "all", "frozen"),
    "as many layers as pretraining trains": network(
        "all", "all", "train", standardize_features=False
    ),
    "a head on random weights": network("head", "head", "train"),
    "a head on random weights below frozen BatchNorm": network("head", "all", "frozen"),
    "a head on weights of their own": network("head", "all", "train", weights="w.pth"),
    "standardised features of weights of their own": network(
        "layer4", "all", "train", weights="w.pth"
    ),
    "a sweep's run that is a row": {"rate_sweep": SWEEP},
    "a claim's method that is a control": {"claims": {"adam_longer": "longer"}},
    "a claim's method that is a row": {"claims": {"swa": "sgd"}},
    "claims that name what by default is not there": {"claims": {"pswa": "pswa"}},
    "a landscape of the start and a row": {"landscape": {"methods": ["adam", "swa"]}},
    "a plane through an average": {"landscape": {"plane": {"method": "swa"}}},
    "search spaces": {"tuning": TUNING},
    "one source at a time": {"one_source_at_a_time": True},
    "all seeds on few training images": {
        "seed_draws": ["split"],
        "data": {"training_images": 100},
    },
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_fits_is_taken(name: str) -> None:
    study(**TAKEN[name])


# --- what a study says of itself -------------------------------------------------------------


def test_names_are_in_the_studys_order() -> None:
    found = study(rate_sweep=SWEEP, controls={"longer": SGD_ROW, "averaged": SWA_ROW})
    assert found.row_names == ("adam", "sgd", "swa")
    assert found.run_names == (
        "adam", "sgd", "swa", "longer", "averaged", "sgd-rate-0.2", "swa-rate-0.2",
    )  # fmt: skip
    assert tuple(found.all_methods) == found.run_names[1:]
    assert found.averaging_methods == ("swa",)
    assert list(found.sweep_cells) == [("sgd", 0.1), ("sgd", 0.2), ("swa", 0.1), ("swa", 0.2)]
    assert found.row_method("swa-rate-0.2").title == "SWA, at 0.2"
    # A cell of the sweep that is a row is that row, title and all.
    assert found.all_methods["sgd"] == found.methods["sgd"]
    assert found.select_methods(["swa-rate-0.2", "longer", "sgd", "sgd"]) == [
        "sgd", "longer", "swa-rate-0.2",
    ]  # fmt: skip
    assert found.select_methods(["swa", "all"]) == list(found.all_methods)
    for name in ("sga", "adam"):
        with pytest.raises(InputError, match=f"--method: unknown method '{name}' in study 'small'"):
            found.select_methods(["sgd", name])


def test_the_start_is_a_row_with_its_own_stage_and_the_papers_number() -> None:
    found = study(pretrain={**START, "paper_accuracy": 92.5, "title": "The start"})
    row = found.row_method("adam")
    assert (row.title, row.paper_accuracy, row.averaging) == ("The start", 92.5, None)
    assert row.rate == found.pretrain.rate
    assert found.row_stage("adam") == found.pretrain
    assert found.row_stage("swa") == found.finetune


def test_an_optimizer_of_its_own_is_kept_where_it_is_not_the_stages() -> None:
    adam, sgd = {"name": "adam"}, {"name": "sgd", "momentum": 0.5}
    methods = {
        **METHODS,
        "adams": {**SGD_ROW, "optimizer": adam},
        "slow": {**SGD_ROW, "optimizer": sgd},
        "spelled": {**SGD_ROW, "optimizer": {"name": "sgd", "momentum": 0.9}},
    }
    found = study(methods=methods).all_methods
    assert found["spelled"].optimizer is None
    assert found["slow"].optimizer == SGD(name="sgd", momentum=0.5)
    assert found["adams"].optimizer is not None


def test_batchnorm_trains_in_all_steps_or_none_or_those_of_the_first_epoch() -> None:
    for mode, steps in (("train", None), ("frozen", 0), ("first-epoch", 7)):
        stage = study(finetune={**SGD_STAGE, "batchnorm": mode}).finetune
        assert stage.batchnorm_steps(7) == steps


def test_a_landscapes_rows_are_those_asked_for_with_the_start_and_the_reference() -> None:
    def rows(part: Part, **changes: Any) -> tuple[str, ...]:
        methods = {**METHODS, "late": {**LATE, "averaging": {"start_at_epoch": 1}}}
        return study(methods=methods, **changes).landscape_rows(part)

    assert rows("rays") == rows("hessian") == rows("sharpness") == ("adam", "sgd", "swa", "late")
    assert rows("lines") == ("adam", "sgd", "swa", "late")
    assert rows("segments") == ("sgd", "swa", "late")
    assert rows("plane") == ("adam", "sgd", "swa")
    assert rows("plane", landscape={"plane": {"method": "late"}}) == ("adam", "sgd", "late")
    few = {"methods": ["late"]}
    assert rows("rays", landscape=few) == ("adam", "sgd", "late")
    assert rows("lines", landscape=few) == ("adam", "sgd", "late")
    assert rows("segments", landscape=few) == ("sgd", "late")
    assert rows("plane", landscape=few) == ("adam", "sgd", "late")
    assert rows("rays", landscape=few, reference="swa") == ("adam", "swa", "late")
    none: dict[str, Any] = {"methods": []}
    assert rows("lines", landscape=none) == ("adam", "sgd")
    assert rows("segments", landscape=none) == rows("plane", landscape=none) == ()
    # Compared with the start alone there is no line.
    assert rows("lines", landscape=none, reference="adam") == ()
    assert rows("rays", landscape=none, reference="adam") == ("adam",)


def test_a_part_of_the_landscape_looks_at_the_first_of_the_seeds() -> None:
    found = study(landscape={"lines": {"seeds": 3}, "rays": {"seeds": None}})
    seeds = [5, 3, 9, 1]
    assert found.landscape_seeds("lines", seeds) == [5, 3, 9]
    assert found.landscape_seeds("rays", seeds) == seeds
    assert found.landscape_seeds("plane", seeds) == [5]


# --- search spaces ---------------------------------------------------------------------------


def test_a_trials_name_is_short_and_a_number_in_yamls_bare_exponent_form_is_one() -> None:
    families = {"sgd": {"rate.learning_rate": ["1e-3", 1e20]}}
    found = study(tuning={**TUNING, "families": families})
    assert found.tuning is not None
    assert list(found.tuning.trials(found.methods)) == ["sgd-0.001", "sgd-1e20"]


def test_a_trial_changes_what_it_names_and_leaves_the_rest_unset() -> None:
    """So a method is the same as one that is written down with these values."""
    found = study(tuning=TUNING)
    assert found.tuning is not None
    trial = found.tuning.trials(found.methods)["swa-3"].method
    assert trial.averaging is not None
    assert trial.averaging.model_fields_set == {"start_at_epoch"}
    assert trial.rate == found.methods["swa"].rate


def test_sides_are_two_or_none_and_without_empty_ones() -> None:
    families: dict[str, Any] = {name: {"rate.learning_rate": [1, 2]} for name in "abc"}
    base = {"seeds": [1], "trials_per_family": 2, "families": families}
    for sides in ({}, {"x": ["a"], "y": ["b"]}):
        Tuning.model_validate({**base, "sides": sides})
    refused: list[dict[str, list[str]]] = [
        {"x": ["a"]},
        {"x": ["a"], "y": ["b"], "z": ["c"]},
        {"x": [], "y": []},
        {"x": ["a", "a"], "y": ["b", "c"]},
    ]
    for wrong in refused:
        with pytest.raises(ValueError, match="sides"):
            Tuning.model_validate({**base, "sides": wrong})


def test_a_value_in_the_middle_of_an_unsorted_grid_is_at_no_edge() -> None:
    grid = {"rate.learning_rate": [0.2, 0.1, 0.4, 0.3], "averaging.captures": [5]}
    tuning = Tuning.model_validate(
        {"seeds": [1], "trials_per_family": 4, "families": {"last": grid}}
    )
    for rate, at_edge in ((0.1, True), (0.2, False), (0.3, False), (0.4, True)):
        found = tuning.at_edge("last", {"rate.learning_rate": rate, "averaging.captures": 5})
        assert found == (("rate.learning_rate",) if at_edge else ())


def test_the_default_study_compares_with_sgd_at_a_constant_rate() -> None:
    study = load_study("mnist")
    assert (study.reference, study.methods["sgd"].rate.schedule) == ("sgd", "constant")
