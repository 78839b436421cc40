"""The rate sweep: which runs it adds, and which it finds among the table's rows."""

import pytest
from pydantic import ValidationError

from swabench.study.identity import Identities, NamedFiles
from swabench.study.loading import load_study
from swabench.study.study import Study
from tests.made_up import study_with


def test_rates_that_a_row_has_are_not_run_again() -> None:
    study = load_study("mnist")
    assert study.sweep_cells["sgd", 0.005] == "sgd"
    assert study.sweep_cells["swa", 0.01] == "swa"
    assert study.sweep_cells["swa", 0.1] == "swa-rate-0.1"
    assert len(study.run_names) == len(study.row_names) + len(study.controls) + 2 * 7 - 2
    assert study.run_names[: len(study.row_names)] == study.row_names


def identity(study: Study, name: str) -> str:
    return Identities(study, NamedFiles()).run(name, 0)


@pytest.mark.parametrize("ramps", [{}, {"warmup_epochs": 1, "cooldown_epochs": 2}])
def test_a_swept_run_is_the_method_at_that_rate(ramps: dict[str, float]) -> None:
    methods = study_with(1, rate_sweep=None).model_dump()["methods"]
    methods["swa"]["rate"] |= ramps
    sweep = {"methods": ["swa"], "rates": [0.01, 0.02]}
    study = study_with(1, methods=methods, rate_sweep=sweep)
    assert study.sweep_cells["swa", 0.01] == "swa"
    methods["swa"]["rate"]["learning_rate"] = 0.02
    moved = study_with(1, methods=methods, rate_sweep=None)
    assert identity(study, "swa-rate-0.02") == identity(moved, "swa")
    assert study.row_method("swa-rate-0.02").averaging == study.methods["swa"].averaging
    assert study.row_method("swa-rate-0.02").paper_accuracy is None


def test_a_sweep_changes_no_run_of_the_table() -> None:
    alone = study_with(1, rate_sweep=None)
    swept = study_with(1)
    for name in alone.row_names:
        assert identity(alone, name) == identity(swept, name)
    assert alone.sweep_cells == {}


def test_all_names_the_sweeps_runs_too() -> None:
    study = load_study("mnist")
    assert study.select_methods(["all"]) == list(study.all_methods)
    assert study.select_methods(["sgd-rate-0.1"]) == ["sgd-rate-0.1"]


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ({"methods": ["sga"], "rates": [0.1]}, "rate_sweep.methods: unknown method 'sga'"),
        ({"methods": ["pswa"], "rates": [0.1]}, "'pswa' has no constant rate"),
        ({"methods": ["sgd"], "rates": [0.1, 0.1]}, "names something twice"),
        ({"methods": ["sgd"], "rates": [0.1, 0.10000000001]}, "too near each other"),
        ({"methods": ["sgd"], "rates": [-0.1]}, "greater than 0"),
        ({"methods": [], "rates": [0.1]}, "at least 1"),
    ],
)
def test_what_does_not_fit_is_named(sweep: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        study_with(1, rate_sweep=sweep)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"pswa": "psva"}, "claims.pswa: unknown method 'psva'"),
        ({"margin_points": 0}, "margin_points"),
        ({"alpha": 1.5}, "alpha"),
        ({"magrin": 1}, "Extra inputs"),
    ],
)
def test_rules_are_checked(rules: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        study_with(1, claims=rules)
