"""Tuning: search spaces, their checks and digests, and the choice on made-up records."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swabench import load
from swabench.analysis.figures import tuning as tuning_figure
from swabench.analysis.frame import Records, collect
from swabench.analysis.publish_tuning import in_sentences, publish_tuning
from swabench.analysis.tuning import _best, choose, trial_frame
from swabench.records import RecordStore, tuned_study
from swabench.study.identity import NamedFiles
from swabench.study.inputs import SplitName
from swabench.study.loading import load_study
from swabench.study.search_space import search_space_digest, trial_study, tuned, tuning_of
from swabench.study.study import Study
from swabench.study.trajectories import trajectories
from swabench.study.tuning import Choice, Choices
from swabench.system.errors import InputError
from swabench.training.measurement import Divergence, Measurement, Predictor
from swabench.training.observers import Outcome
from tests import made_up

COMMITTED = sorted(Path(__file__).parents[1].glob("results/*/choices.yaml"))
RATES = [0.001, 0.002, 0.004, 0.008]
TUNING: dict[str, Any] = {
    "seeds": [7, 9],
    "trials_per_family": 4,
    "families": {
        "sgd": {"rate.learning_rate": RATES},
        "swa": {"rate.learning_rate": [0.002, 0.004], "averaging.start_at_epoch": [0, 1]},
        "sgd-multiplicative": {"rate.learning_rate": [0.01, 0.02], "rate.every_epochs": [1, 2]},
    },
    "sides": {"averaging": ["swa"], "annealed": ["sgd-multiplicative"]},
}


def study(tuning: Mapping[str, Any] | None = None, **changes: Any) -> Study:
    """The smoke study with search spaces, and with keys of them replaced."""
    whole = load_study("smoke").model_dump()
    whole["data"]["selection_images"] = 100
    return Study.model_validate({**whole, "tuning": {**TUNING, **(tuning or {})}, **changes})


# --- trials ----------------------------------------------------------------------------------


def test_trials_are_all_combinations_of_a_familys_values() -> None:
    trials = tuning_of(study()).trials(study().methods)
    assert list(trials) == [
        *(f"sgd-{rate}" for rate in RATES),
        "swa-0.002-0", "swa-0.002-1", "swa-0.004-0", "swa-0.004-1",
        "sgd-multiplicative-0.01-1", "sgd-multiplicative-0.01-2",
        "sgd-multiplicative-0.02-1", "sgd-multiplicative-0.02-2",
    ]  # fmt: skip
    own, trial = study().methods["swa"], trials["swa-0.004-1"]
    assert trial.family == "swa"
    assert trial.settings == {"rate.learning_rate": 0.004, "averaging.start_at_epoch": 1}
    assert own.averaging is not None
    assert trial.method == own.model_copy(
        update={
            "title": "SWA, constant rate (learning_rate 0.004, start_at_epoch 1)",
            "rate": own.rate.model_copy(update={"learning_rate": 0.004}),
            "averaging": own.averaging.model_copy(update={"start_at_epoch": 1.0}),
            "paper_accuracy": None,
        }
    )


def test_trials_are_a_study_that_shares_all_but_seeds_and_methods() -> None:
    whole = study()
    trials = trial_study(whole)
    assert list(trials.all_methods) == list(tuning_of(whole).trials(whole.methods))
    assert trials.seeds == (7, 9)
    assert trials.pretrain == whole.pretrain
    assert trials.backbone == whole.backbone
    assert trials.finetune == whole.finetune.model_copy(update={"keep_weights": "none"})
    assert trials.data == whole.data.model_copy(update={"test_images": None})
    assert trials.tuning is None
    assert trials.rate_sweep is None
    # sgd and swa at 0.002 and 0.004 are one trajectory each.
    assert len(trajectories(trials.all_methods)) == 4 + 4


def test_a_trial_has_none_of_the_papers_numbers() -> None:
    """They belong to the paper's settings."""
    methods = study().model_dump()["methods"]
    for number, method in enumerate(methods.values()):
        method["paper_accuracy"] = 90.0 + number
    whole = study(methods=methods)
    trials = tuning_of(whole).trials(whole.methods).values()
    assert {trial.method.paper_accuracy for trial in trials} == {None}


def test_trials_draw_what_the_studys_seeds_draw() -> None:
    drawn = ("order",)
    assert trial_study(study(seed_draws=drawn)).seed_draws == drawn
    like = trial_study(study(confidence=0.9, title="Mine"))
    assert (like.confidence, like.title, like.reference) == (0.9, "Trials: Mine", "adam")


def test_trials_of_a_network_are_measured_at_the_end_alone() -> None:
    heads = study()
    changes = {"trainable": "all", "batchnorm": "frozen", "score_every_epochs": 2}
    network = heads.finetune.model_copy(update=changes)
    trials = trial_study(heads.model_copy(update={"finetune": network}))
    assert trials.finetune.score_every_epochs == heads.finetune.epochs
    assert trials.finetune.trainable == "all"


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "unequal trials": (
        {"trials_per_family": 3}, {},
        r"families.sgd: its grid has 4 = 4 trials where every family has 3",
    ),
    "a product that is too small": (
        {"families": {**TUNING["families"], "swa": {"rate.learning_rate": [0.1, 0.2]}}}, {},
        r"families.swa: its grid has 2 = 2 trials where every family has 4",
    ),
    "a seed of the study": ({"seeds": [7, 1]}, {}, r"tuning.seeds: 1 among the study's own seeds"),
    "a seed twice": ({"seeds": [7, 7]}, {}, r"names a seed twice"),
    "no seed": ({"seeds": []}, {}, r"at least 1 item"),
    "an unknown family": (
        {"families": {"sdg": {"rate.learning_rate": RATES}}, "sides": {}}, {},
        r"tuning.families: unknown method 'sdg'; choose from sgd, ",
    ),
    "an unknown setting": (
        {"families": {"sgd": {"rate.learning_rates": RATES}}, "sides": {}}, {},
        r"families.sgd: learning_rates 0.001: rate.learning_rates: unknown key",
    ),
    "a part that the method has not": (
        {"families": {"sgd": {"averaging.captures": [1, 2, 3, 4]}}, "sides": {}}, {},
        r"families.sgd.averaging.captures: the method has no 'averaging' of its own",
    ),
    "a value that the setting refuses": (
        {"families": {"sgd": {"rate.learning_rate": [0.1, 0.2, 0.3, -1]}}, "sides": {}}, {},
        r"families.sgd: learning_rate -1: rate.learning_rate: Input should be greater than 0",
    ),
    "a value that does not fit the epochs": (
        {"families": {"swa": {"averaging.start_at_epoch": [0, 1, 2, 3]}}, "sides": {}}, {},
        r"families.swa: start_at_epoch 3: averaging.start_at_epoch: 3 leaves no capture in 3",
    ),
    "a flag": (
        {"families": {"sgd": {"rate.learning_rate": [0.1, 0.2, 0.3, True]}}, "sides": {}}, {},
        r"give a number, not true or false",
    ),
    "a value twice": (
        {"families": {"sgd": {"rate.learning_rate": [0.1, 0.2, 0.3, 0.1]}}, "sides": {}}, {},
        r"families.sgd: 'sgd-0.1' is there twice",
    ),
    "a setting that changes nothing": (
        {"families": {"sgd": {"paper_accuracy": [1, 2, 3, 4]}}, "sides": {}}, {},
        r"families.sgd: 'sgd-2' is there twice",
    ),
    "one side": ({"sides": {"averaging": ["swa"]}}, {}, r"sides: found 1; name two"),
    "an unknown family on a side": (
        {"sides": {"averaging": ["swa"], "annealed": ["linear"]}}, {},
        r"sides.annealed: 'linear' has no search space; choose from sgd, swa",
    ),
    "a family on both sides": (
        {"sides": {"averaging": ["swa"], "annealed": ["swa"]}}, {}, r"'swa' is named twice",
    ),
    "unequal sides": (
        {"sides": {"averaging": ["swa"], "annealed": ["sgd", "sgd-multiplicative"]}}, {},
        r"sides: averaging 4, annealed 8 trials in all; give both equally many families",
    ),
    "a trial that is called like the start": (
        {}, {"pretrain": {**load_study("smoke").pretrain.model_dump(), "name": "sgd-0.001"}},
        r"the trial 'sgd-0.001' is called like pretrain.name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_unfair_or_unfit_search_spaces_are_refused_with_their_key(name: str) -> None:
    tuning, changes, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        study(tuning, **changes)


def test_a_choice_is_not_written_into_the_study_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    chosen = choices().model_dump(mode="json")
    content = {"extends": "smoke", "title": "t", "tuning": {**TUNING, "chosen": chosen}}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"mine.yaml: tuning.chosen"):
        load_study(str(path))


def test_the_bundled_study_gives_every_family_equally_many_trials() -> None:
    loaded = load_study("mnist-tuned")
    tuning = tuning_of(loaded)
    assert list(tuning.families) == list(loaded.methods)
    trials = list(tuning.trials(loaded.methods).values())
    for family in loaded.methods:
        assert sum(t.family == family for t in trials) == tuning.trials_per_family
    sides = [sum(t.family in names for t in trials) for names in tuning.sides.values()]
    assert sides[0] == sides[1] > 0
    assert set(tuning.seeds).isdisjoint(loaded.seeds)
    assert len(loaded.seeds) == 20
    assert [loaded.row_method(n).paper_accuracy for n in loaded.row_names] == [None] * 17
    for name, method in loaded.methods.items():
        plan = method.averaging
        included = plan is not None and getattr(plan, "include_start", False)
        assert included == (name == "swa-with-start"), name
    averaging, annealed = ([loaded.methods[n] for n in names] for names in tuning.sides.values())
    assert list(tuning.sides) == ["averaging", "annealed"]
    assert all(m.averaging and m.rate.schedule == "constant" for m in averaging)
    assert not any(m.averaging or m.rate.schedule == "constant" for m in annealed)


# --- the digest ------------------------------------------------------------------------------


def test_a_choice_holds_for_one_search_space() -> None:
    """Whatever its trials depend on counts, and nothing else does."""
    base = load_study("smoke").model_dump()
    data = {**base["data"], "selection_images": 100}
    methods = base["methods"]
    same: list[Study] = [
        study(title="Another title"),
        study(seeds=[3, 4, 5]),
        study(data={**data, "test_images": 500}),
        study(claims={"alpha": 0.01}),
        study(rate_sweep=None),
        study(methods={**methods, "sgd": _at(methods["sgd"], 0.123)}),  # a trial has its own
        study(methods={**methods, "pswa": methods["swa"]}, rate_sweep=None),
    ]
    others = [
        study({"seeds": [7, 8]}),
        study({"sides": {}}),
        study({"chosen_by": "accuracy"}),
        study({"sides": {"averaging": ["swa"], "annealed": ["sgd"]}}),
        study({"families": {**TUNING["families"], "sgd": {"rate.learning_rate": [1, 2, 3, 4]}}}),
        study(data={**data, "selection_images": 50}),
        study(data={**data, "training_images": 500}),
        study(pretrain={**base["pretrain"], "epochs": 2}),
        study(finetune={**base["finetune"], "batch_size": 64}),
        study(backbone={**base["backbone"], "seed": 1}),
        study(
            methods={**methods, "swa": {**methods["swa"], "averaging": {"include_start": False}}}
        ),
    ]
    digest = digest_of(study())
    assert [digest_of(other) for other in same] == [digest] * len(same)
    found = [digest_of(other) for other in others]
    assert len({digest, *found}) == 1 + len(others)
    assert digest_of(study(), NamedFiles(data="0" * 64)) == digest
    assert digest_of(study(), NamedFiles(weights="0" * 64)) != digest
    assert digest_of(tuned(study(), choices())) == digest


def digest_of(tuned_or_not: Study, files: NamedFiles = NamedFiles()) -> str:  # noqa: B008
    return search_space_digest(tuned_or_not, files)


def _at(method: dict[str, Any], rate: float) -> dict[str, Any]:
    return {**method, "rate": {**method["rate"], "learning_rate": rate}}


# --- the tuned study -------------------------------------------------------------------------


def choices(**settings: dict[str, Any]) -> Choices:
    """Something to choose, with a family's settings replaced."""
    chosen = {
        "sgd": {"rate.learning_rate": 0.002},
        "swa": {"rate.learning_rate": 0.004, "averaging.start_at_epoch": 1},
        "sgd-multiplicative": {"rate.learning_rate": 0.02, "rate.every_epochs": 2},
    } | settings
    return Choices(
        search_space="0123456789abcdef",
        seeds=(7, 9),
        families={f: Choice(settings=s, loss=0.25, trials=4) for f, s in chosen.items()},
        sides={"averaging": "swa", "annealed": "sgd-multiplicative"},
    )


def test_a_tuned_study_is_the_study_with_the_chosen_methods() -> None:
    whole = study()
    assert whole.all_methods["sgd"].title == "SGD, constant rate"  # and nothing of it stays behind
    found = tuned(whole, choices())
    trials = tuning_of(whole).trials(whole.methods)
    assert found.methods["sgd"] == trials["sgd-0.002"].method
    assert found.all_methods["swa"] == trials["swa-0.004-1"].method
    assert found.methods["sgd-multiplicative"].title.endswith(
        "(learning_rate 0.02, every_epochs 2)"
    )
    for name in ("swa-cyclical", "pswa"):
        assert found.methods[name] == whole.methods[name]
    assert list(found.methods) == list(whole.methods)
    assert tuning_of(found).chosen == choices()
    assert found.claims.named_methods == whole.claims.named_methods
    for name in Study.model_fields.keys() - {"methods", "tuning"}:
        assert getattr(found, name) == getattr(whole, name)
    # As the manifest has it, it is the same again.
    assert Study.model_validate(found.model_dump(mode="json")) == found


def test_families_with_the_same_grid_keep_their_own_methods() -> None:
    grid = {"rate.learning_rate": RATES}
    whole = study({"families": {"sgd": grid, "swa": grid}, "sides": {}})
    settings = {"rate.learning_rate": 0.004}
    families = {f: Choice(settings=settings, loss=0.25, trials=4) for f in ("sgd", "swa")}
    found = tuned(whole, Choices(search_space="0", seeds=(7, 9), families=families))
    for name in families:
        assert found.methods[name].averaging == whole.methods[name].averaging
        assert found.methods[name].title == f"{whole.methods[name].title} (learning_rate 0.004)"


def test_a_choice_that_is_no_trial_is_refused() -> None:
    with pytest.raises(InputError, match=r"families.sgd: what is chosen is none of its trials"):
        tuned(study(), choices(sgd={"rate.learning_rate": 0.003}))
    fewer = choices()
    del fewer.families["swa"]
    with pytest.raises(InputError, match=r"families\.swa"):
        tuned(study(), fewer)
    other = choices().model_copy(update={"sides": {"averaging": "sgd", "annealed": "swa"}})
    with pytest.raises(InputError, match=r"sides\.averaging: what is chosen is none of swa"):
        tuned(study(), other)


# --- the choice ------------------------------------------------------------------------------

SGD_LOSSES = {0.001: 0.30, 0.002: 0.24, 0.004: 0.26, 0.008: 0.50}
"""Validation losses of what is handed over, in the mean over the seeds; likewise below."""
SWA_LOSSES = {(0.002, 0): 0.25, (0.002, 1): 0.27, (0.004, 0): 0.23, (0.004, 1): 0.22}
SWA = [f"swa-{rate:g}-{captures}" for rate, captures in SWA_LOSSES]
DECAY_LOSSES = {(0.01, 1): 0.233, (0.01, 2): 0.221, (0.02, 1): 0.25, (0.02, 2): 0.24}


def truth(name: str) -> float:
    family, *_ = [f for f in TUNING["families"] if name.startswith(f + "-0")]
    values = tuple(float(part) for part in name.removeprefix(family + "-").split("-"))
    if family == "sgd":
        return SGD_LOSSES[values[0]]
    losses = SWA_LOSSES if family == "swa" else DECAY_LOSSES
    return losses[values[0], int(values[1])]


def outcome(name: str, seed: int, averages: bool) -> Outcome:
    """Whatever else could be looked at, by mistake, has its optimum somewhere else."""
    right, result = truth(name), "average" if averages else "iterate"
    predictors: list[Predictor] = ["iterate", "average", "ensemble"] if averages else ["iterate"]
    splits: list[SplitName] = ["test", "selection", "validation"]
    found = []
    for epoch in (1, 2, 3):
        for split in splits:
            for predictor in predictors:
                decides = (epoch, split, predictor) == (3, "validation", result)
                # Elsewhere the worst is the best.
                loss = right + deviation(name) * (1 if seed == 7 else -1) if decides else 1 - right
                # The higher the loss, the higher the accuracy: it is the loss that decides.
                found.append(Measurement(epoch, predictor, split, 90 + loss, loss))
    return Outcome(history=found)


def deviation(name: str) -> float:
    """Seed 7 alone, and seed 9 alone, would choose another trial than both together."""
    family = name.removesuffix("-0").split("-0.")[0]
    losses = {"sgd": SGD_LOSSES, "swa": SWA_LOSSES}.get(family, DECAY_LOSSES)
    rank = sorted(losses.values()).index(truth(name))  # type: ignore[attr-defined]
    return [0.05, 0.1, -0.1, -0.1][rank]


def write_trials(
    results: Path,
    of: Study,
    without: tuple[str, int] | None = None,
    diverged: Sequence[str] = (),
) -> RecordStore:
    """The records of all trials but one; some diverged at seed 7."""
    trials = trial_study(of)
    folder = RecordStore(results, of).folder
    store = RecordStore(folder, trials)
    for seed in trials.seeds:
        for name, method in trials.methods.items():
            if (name, seed) != without:
                found = outcome(name, seed, method.averaging is not None)
                if name in diverged and seed == 7:
                    found.diverged = Divergence(2, "iterate", "validation", math.inf)
                store.write(
                    name, seed, found,
                    provenance=made_up.PROVENANCE, environment=made_up.ENVIRONMENT, seconds=1,
                )  # fmt: skip
    return RecordStore(results, of)


def frame_of(results: Path, of: Study) -> pd.DataFrame:
    trials = trial_study(of)
    store = RecordStore(RecordStore(results, of).folder, trials)
    records = collect(trials, store, list(trials.seeds), list(trials.methods))
    return trial_frame(of, records)


def test_the_lowest_mean_validation_loss_of_what_is_handed_over_is_chosen(tmp_path: Path) -> None:
    write_trials(tmp_path, study())
    found = choose(study(), frame_of(tmp_path, study()), "0" * 16)
    assert {family: choice.settings for family, choice in found.families.items()} == {
        "sgd": {"rate.learning_rate": 0.002},
        "swa": {"rate.learning_rate": 0.004, "averaging.start_at_epoch": 1},
        "sgd-multiplicative": {"rate.learning_rate": 0.01, "rate.every_epochs": 2},
    }
    assert {family: choice.loss for family, choice in found.families.items()} == {
        "sgd": 0.24, "swa": 0.22, "sgd-multiplicative": 0.221,
    }  # fmt: skip
    # Of the two values 0.24 ± 0.05 the deviation is 0.05 · √2.
    assert found.families["sgd"].standard_error == pytest.approx(0.05)
    assert found.sides == {"averaging": "swa", "annealed": "sgd-multiplicative"}
    assert found.seeds == (7, 9)
    assert found.search_space == "0" * 16
    assert all(choice.trials == 4 for choice in found.families.values())


def test_a_study_may_choose_by_accuracy(tmp_path: Path) -> None:
    """In these trials it is highest where the loss is."""
    of = study({"chosen_by": "accuracy"})
    write_trials(tmp_path, of)
    found = choose(of, frame_of(tmp_path, of), "0" * 16)
    worst = {
        "sgd": max(SGD_LOSSES.values()),
        "swa": max(SWA_LOSSES.values()),
        "sgd-multiplicative": max(DECAY_LOSSES.values()),
    }
    assert {family: choice.loss for family, choice in found.families.items()} == worst
    publish_tuning(of, RecordStore(tmp_path, of))
    text = (tmp_path / of.name / "tuning.md").read_text()
    assert "highest mean validation accuracy" in text
    assert "lowest mean validation loss" not in text


def test_of_equally_accurate_trials_the_one_with_the_lowest_loss_is_chosen() -> None:
    frame = pd.DataFrame(
        {
            "family": "sgd",
            "trial": ["a", "b", "c", "d"],
            "seeds": 2,
            "diverged": 0,
            "accuracy": [93.0, 94.0, 94.0, 93.9],
            "loss": [0.1, 0.4, 0.3, 0.2],
        }
    )
    by_accuracy = tuning_of(study({"chosen_by": "accuracy"}))
    assert _best(frame, "sgd", by_accuracy) == "c"
    assert _best(frame, "sgd", tuning_of(study())) == "a"


def test_the_picture_is_of_what_decides(tmp_path: Path) -> None:
    of = study({"chosen_by": "accuracy"})
    write_trials(tmp_path, of)
    frame = frame_of(tmp_path, of)
    left, _ = axes_of(of, frame)
    assert left.get_ylabel() == "Validation accuracy (%)"
    curve, ring = left.lines[:2]
    own = frame[frame["family"] == "sgd"]
    np.testing.assert_allclose(np.asarray(curve.get_ydata()), own["accuracy"])
    np.testing.assert_allclose(np.asarray(ring.get_ydata()), own["accuracy"].max())
    low, high = left.get_ylim()
    best = sorted(frame.loc[frame["chosen"], "accuracy"])
    assert best[0] - low > high - best[-1] > 0  # the room is below, where the worse ones are


def test_integers_stay_integers(tmp_path: Path) -> None:
    write_trials(tmp_path, study())
    found = choose(study(), frame_of(tmp_path, study()), "0" * 16)
    assert isinstance(found.families["sgd-multiplicative"].settings["rate.every_epochs"], int)
    tuned(study(), found)


def test_an_optimum_at_the_edge_of_its_grid_is_flagged(tmp_path: Path) -> None:
    one = {"rate.learning_rate": RATES, "averaging.start_at_epoch": [1]}  # a grid without edges
    two = {**TUNING["families"]["sgd-multiplicative"]}
    of = study({"families": {"sgd": {"rate.learning_rate": RATES}, "swa": one,
                             "sgd-multiplicative": two}})  # fmt: skip
    tuning = tuning_of(of)
    assert tuning.at_edge("sgd", {"rate.learning_rate": 0.001}) == ("rate.learning_rate",)
    assert tuning.at_edge("sgd", {"rate.learning_rate": 0.002}) == ()
    assert tuning.at_edge("sgd", {"rate.learning_rate": 0.008}) == ("rate.learning_rate",)
    inside = {"rate.learning_rate": 0.002, "averaging.start_at_epoch": 1}
    assert tuning.at_edge("swa", inside) == ()
    shuffled = study({"families": {"sgd": {"rate.learning_rate": [0.002, 0.008, 0.001, 0.004]}},
                      "sides": {}})  # fmt: skip
    assert tuning_of(shuffled).at_edge("sgd", {"rate.learning_rate": 0.002}) == ()
    write_trials(tmp_path, study())
    frame = frame_of(tmp_path, study())
    at_edge = dict(zip(frame["trial"], frame["at_edge"], strict=True))
    flagged = "rate.learning_rate averaging.start_at_epoch"
    assert {k: v for k, v in at_edge.items() if v} == {
        "swa-0.004-1": flagged,
        "sgd-multiplicative-0.01-2": "rate.learning_rate rate.every_epochs",
    }


def test_of_a_side_the_family_with_the_lowest_loss_is_sent() -> None:
    families = {**TUNING["families"], "pswa": {"rate.low": [0.001, 0.002, 0.003, 0.004]}}
    sides = {"one": ["sgd", "swa"], "other": ["sgd-multiplicative", "pswa"]}
    frame = pd.DataFrame(
        {
            "family": list(families),
            "trial": ["sgd-0.001", "swa-0.002-0", "sgd-multiplicative-0.01-1", "pswa-0.002"],
            "loss": [0.2, 0.3, 0.1000001, 0.1],
            "loss_se": 0.1,
            "chosen": True,
            "at_edge": "",
        }
    )
    found = choose(study({"families": families, "sides": sides}), frame, "0")
    assert found.sides == {"one": "sgd", "other": "pswa"}


def test_a_trial_that_lacks_a_seed_is_not_chosen(tmp_path: Path) -> None:
    store = write_trials(tmp_path, study(), without=("sgd-0.002", 7))
    published = publish_tuning(study(), store)
    found = store.choices()
    assert found is not None
    assert found.families["sgd"].settings == {"rate.learning_rate": 0.004}
    assert any("sgd-0.002 lacks seeds 7" in note for note in published.notes)
    table = pd.read_csv(store.folder / "tuning.csv").set_index("trial")
    assert table.loc["sgd-0.002", "seeds"] == 1
    assert not table.loc["sgd-0.002", "chosen"]


def test_a_family_without_a_whole_trial_is_told(tmp_path: Path) -> None:
    of = study({"families": {"sgd": {"rate.learning_rate": [0.002]}}, "sides": {},
                "trials_per_family": 1, "seeds": [7, 9]})  # fmt: skip
    store = write_trials(tmp_path, of, without=("sgd-0.002", 9))
    with pytest.raises(InputError, match=r"tuning.families.sgd: no trial has a record at every"):
        publish_tuning(of, store)


def test_a_trial_that_diverged_at_a_seed_is_shown_so_and_not_chosen(tmp_path: Path) -> None:
    store = write_trials(tmp_path, study(), diverged=["sgd-0.002"])
    published = publish_tuning(study(), store)
    found = store.choices()
    assert found is not None
    assert found.families["sgd"].settings == {"rate.learning_rate": 0.004}
    lines = [note for note in published.notes if "diverged" in note]
    assert lines == ["sgd-0.002 diverged at 1 of 2 seeds. Such trials are not chosen."]
    table = pd.read_csv(store.folder / "tuning.csv").set_index("trial")
    assert table["diverged"].to_dict() == {name: int(name == "sgd-0.002") for name in table.index}
    assert table.loc["sgd-0.002", "seeds"] == 2
    assert table.loc["sgd-0.002", ["loss", "accuracy", "loss_se"]].isna().all()
    told = [t for t in published.content["all_trials"] if t["diverged"]]
    assert [t["trial"] for t in told] == ["sgd-0.002"]


def test_a_family_all_of_whose_trials_diverged_is_an_error_that_names_it(tmp_path: Path) -> None:
    store = write_trials(tmp_path, study(), diverged=list(SWA))
    with pytest.raises(InputError, match=r"tuning.families.swa: every trial diverged"):
        publish_tuning(study(), store)


# --- what is written -------------------------------------------------------------------------


def test_all_trials_the_choices_and_a_picture_are_written(tmp_path: Path) -> None:
    store = write_trials(tmp_path, study())
    published = publish_tuning(study(), store)
    assert list(published.files) == [
        "tuning.csv", "tuning.md", "figures/tuning.png", "figures/tuning.svg", "choices.yaml",
        "tuning-manifest.json",
    ]  # fmt: skip
    found = json.loads((store.folder / "tuning-manifest.json").read_text())
    assert found["runs"].keys() == trial_study(study()).methods.keys()
    assert found["environments"] == [made_up.ENVIRONMENT]
    assert found["seeds"] == [7, 9]
    for name in published.files:
        assert (store.folder / name).stat().st_size > 0
    table = pd.read_csv(store.folder / "tuning.csv")
    assert len(table) == 12
    assert table.loc[table["chosen"], "trial"].tolist() == [
        "sgd-0.002", "swa-0.004-1", "sgd-multiplicative-0.01-2",
    ]  # fmt: skip
    assert dict(zip(table["trial"], table["loss"], strict=True)) == {
        name: pytest.approx(truth(name)) for name in table["trial"]
    }
    text = (store.folder / "tuning.md").read_text()
    assert "| sgd " in text
    assert "learning_rate 0.004, start_at_epoch 1" in text
    assert "Side averaging: swa (0.2200 nats)" in text
    assert "At the edge of their grids: swa (learning_rate, start_at_epoch)" in text
    assert published.content["families"]["sgd"]["settings"] == {"rate.learning_rate": 0.002}
    assert len(published.content["all_trials"]) == 12


def test_what_was_chosen_is_shown_with_the_errors_and_accuracies_of_its_own_trials(
    tmp_path: Path,
) -> None:
    published = publish_tuning(study(), write_trials(tmp_path, study()))
    assert published.title == f"Chosen settings: {study().title}"
    assert published.shown is not None
    both = "learning_rate, start_at_epoch", "learning_rate, every_epochs"
    decay = "sgd-multiplicative"
    assert published.shown.to_dict(orient="records") == [
        {
            "Family": family,
            "Chosen": chosen,
            "At the edge": edge,
            "Validation loss": loss,
            "Validation accuracy, %": f"{accuracy:.2f}",
            "Trials": 4,
        }
        for family, chosen, edge, loss, accuracy in (
            ("sgd", "learning_rate 0.002", "—", "0.2400 ± 0.0500", 90.24),
            ("swa", "learning_rate 0.004, start_at_epoch 1", both[0], "0.2200 ± 0.0500", 90.22),
            (decay, "learning_rate 0.01, every_epochs 2", both[1], "0.2210 ± 0.0500", 90.221),
        )
    ]
    store = RecordStore(tmp_path, study())
    table = pd.read_csv(store.folder / "tuning.csv").set_index("trial")
    # Of two values ± d the standard error is d.
    assert table.loc["sgd-0.004", "loss_se"] == pytest.approx(0.1)
    assert table.loc["sgd-0.004", "accuracy"] == pytest.approx(90.26)
    assert table.loc["sgd-0.004", "accuracy_se"] == pytest.approx(0.1)
    found = store.choices()
    assert found is not None
    assert {family: choice.at_edge for family, choice in found.families.items()} == {
        "sgd": (),
        "swa": ("rate.learning_rate", "averaging.start_at_epoch"),
        decay: ("rate.learning_rate", "rate.every_epochs"),
    }


def test_of_a_side_the_losses_families_and_trials_are_its_own(tmp_path: Path) -> None:
    families = {**TUNING["families"], "pswa": {"rate.low": [0.001, 0.002, 0.003, 0.004]}}
    of = study(
        {"families": families, "sides": {"one": ["sgd", "swa"], "other": ["sgd-multiplicative",
                                                                         "pswa"]}}
    )  # fmt: skip
    whole = {"sgd": 0.24, "swa": 0.22, "sgd-multiplicative": 0.221, "pswa": 0.3}
    found = Choices(
        search_space="0",
        seeds=(7, 9),
        families={f: Choice(settings={}, loss=loss, trials=4) for f, loss in whole.items()},
        sides={"one": "swa", "other": "sgd-multiplicative"},
    )
    lines = in_sentences(of, found, Records({}))
    assert lines == [
        "Side one: swa (0.2200 nats), the best of sgd, swa (8 trials).",
        "Side other: sgd-multiplicative (0.2210 nats), the best of sgd-multiplicative, pswa "
        "(8 trials).",
    ]


def test_the_page_of_a_tuning_counts_its_families_trials_and_seeds(tmp_path: Path) -> None:
    published = publish_tuning(study(), write_trials(tmp_path, study()))
    text = (RecordStore(tmp_path, study()).folder / "tuning.md").read_text()
    assert "Each of the 3 families has 4 trials at seeds 7, 9, none of which" in text
    assert text.startswith(f"# Chosen settings: {study().title}\n\n")
    assert len(published.notes) == 3
    assert text.endswith("\n\n" + "\n".join(f"- {note}" for note in published.notes) + "\n")


def test_one_tuning_seed_has_no_standard_error(tmp_path: Path) -> None:
    one = study({"seeds": [7]})
    published = publish_tuning(one, write_trials(tmp_path, one))
    found = RecordStore(tmp_path, one).choices()
    assert found is not None
    assert {choice.standard_error for choice in found.families.values()} == {None}
    assert published.shown is not None
    assert published.shown["Validation loss"].str.fullmatch(r"0\.\d{4}").all()


def test_a_tuning_that_cannot_be_drawn_says_so_and_takes_the_old_picture_away(
    tmp_path: Path,
) -> None:
    grid = {"averaging.start_at_epoch": [0, 1]}
    only = study({"families": {"swa": grid}, "sides": {}, "trials_per_family": 2})
    store, trials = RecordStore(tmp_path, only), trial_study(only)
    own = RecordStore(store.folder, trials)
    for seed in trials.seeds:
        for name in trials.methods:
            made_up.write_run(own, trials, name, seed)
    for kind in ("png", "svg"):
        store.write_figure(f"tuning.{kind}", b"of when its rate was tuned")
    published = publish_tuning(only, store)
    assert "tuning: not drawn: no family's rate is tuned" in published.notes
    assert "tuning: not drawn" in (store.folder / "tuning.md").read_text()
    made = ["tuning.csv", "tuning.md", "choices.yaml", "tuning-manifest.json"]
    assert list(published.files) == made
    assert not list(store.folder.glob("figures/*"))


def axes_of(of: Study, frame: pd.DataFrame) -> list[Axes]:
    """The axes of a tuning's picture, as matplotlib has them before they become bytes."""
    drawn: list[Figure] = []

    def keep(figure: Figure, *_: object) -> bytes:
        drawn.append(figure)
        return b""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning_figure, "render", keep)
        tuning_figure.draw_tuning(of, frame)
    return drawn[0].axes


def test_the_picture_has_a_panel_for_either_kind_of_family_each_with_its_own_curves(
    tmp_path: Path,
) -> None:
    families = {**TUNING["families"], "pswa": {"rate.high": [0.02, 0.03, 0.04, 0.05]}}
    of = study({"families": families})
    write_trials(tmp_path, study())
    frame = frame_of(tmp_path, study())
    cyclical = pd.DataFrame(
        {
            "family": "pswa",
            "rate.high": [0.02, 0.03, 0.04, 0.05],
            "loss": [0.4, 0.28, 0.29, 0.9],
            "chosen": [False, True, False, False],
        }
    )
    left, right = axes_of(of, pd.concat([frame, cyclical], ignore_index=True))
    assert left.get_title() == "Without an averaging plan"
    assert right.get_title() == "With an averaging plan"
    assert left.get_ylabel() == "Validation loss (nats)"
    expected: dict[str, dict[float, float]] = {
        "sgd": SGD_LOSSES,
        "sgd-multiplicative": {0.01: 0.221, 0.02: 0.24},
        "swa": {0.002: 0.25, 0.004: 0.22},
        "pswa": {0.02: 0.4, 0.03: 0.28, 0.04: 0.29, 0.05: 0.9},
    }
    chosen = {"sgd": 0.002, "sgd-multiplicative": 0.01, "swa": 0.004, "pswa": 0.03}
    for ax, names in ((left, ["sgd", "sgd-multiplicative"]), (right, ["swa", "pswa"])):
        assert ax.get_xscale() == "log"
        curves, rings = ax.lines[::2], ax.lines[1::2]
        assert [curve.get_label() for curve in curves] == names
        for name, curve, ring in zip(names, curves, rings, strict=True):
            wanted = np.array(list(expected[name].items()))
            np.testing.assert_allclose(np.asarray(curve.get_xydata()), wanted)
            best = [[chosen[name], expected[name][chosen[name]]]]
            np.testing.assert_allclose(np.asarray(ring.get_xydata()), best)
        # Near the best ones, with room above: a rate that destroys is no reason to see nothing.
        low, high = ax.get_ylim()
        best_losses = [expected[name][chosen[name]] for name in names]
        assert low < min(best_losses)
        assert max(best_losses) < high < 0.5


def test_the_picture_of_one_family_has_one_panel_that_reaches_about_its_best() -> None:
    only = study({"families": {"sgd": TUNING["families"]["sgd"]}, "sides": {}})
    frame = pd.DataFrame(
        {"family": "sgd", "rate.learning_rate": RATES, "loss": [0.3, 0.2, 0.25, 9.0], "diverged": 0}
    )
    (ax,) = axes_of(only, frame.assign(chosen=frame["loss"] == 0.2))
    assert ax.get_title() == "Without an averaging plan"
    low, high = ax.get_ylim()
    assert 0.19 < low < 0.2 < high < 0.21


def test_the_picture_marks_a_rate_at_which_every_trial_diverged_at_its_upper_edge(
    tmp_path: Path,
) -> None:
    of = study()
    write_trials(tmp_path, of, diverged=["sgd-0.008", "swa-0.002-0"])
    left, right = axes_of(of, frame_of(tmp_path, of))
    crosses = [line for ax in (left, right) for line in ax.lines if line.get_marker() == "x"]
    (cross,) = crosses  # swa's other trial at that rate did not
    assert np.asarray(cross.get_xydata()).tolist() == [[0.008, 1.0]]
    assert cross.get_transform() == left.get_xaxis_transform()
    picture = tuning_figure.draw_tuning(of, frame_of(tmp_path, of))
    assert "A cross at the upper edge" in picture.caption


@pytest.mark.parametrize(
    ("rates", "labels"),
    [
        ([0.0025, 0.005, 0.01, 0.02, 0.04], ["0.005", "0.01", "0.02"]),
        ([0.0003, 0.01, 0.5], ["0.001", "0.01", "0.1"]),
    ],
)
def test_the_picture_names_several_rates_whatever_they_span(
    rates: list[float], labels: list[str]
) -> None:
    families = {"sgd": {"rate.learning_rate": rates}}
    only = study({"families": families, "sides": {}, "trials_per_family": len(rates)})
    frame = pd.DataFrame(
        {"family": "sgd", "rate.learning_rate": rates, "diverged": 0, "loss": 0.2, "chosen": False}
    ).assign(chosen=[True] + [False] * (len(rates) - 1))
    (ax,) = axes_of(only, frame)
    low, high = ax.get_xlim()
    ticks = zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
    assert [label.get_text() for at, label in ticks if low <= at <= high] == labels


def test_the_picture_shows_a_rates_best_trial() -> None:
    losses = {(0.002, 0): 0.5, (0.002, 1): 0.3, (0.004, 0): 0.2, (0.004, 1): 0.6}
    only = study({"families": {"swa": TUNING["families"]["swa"]}, "sides": {}})
    frame = pd.DataFrame(
        {
            "family": "swa",
            "rate.learning_rate": [rate for rate, _ in losses],
            "averaging.start_at_epoch": [start for _, start in losses],
            "diverged": 0,
            "loss": list(losses.values()),
            "chosen": [loss == 0.2 for loss in losses.values()],
        }
    )
    curve, ring = axes_of(only, frame)[0].lines
    np.testing.assert_allclose(np.array(curve.get_xydata()), np.array([[0.002, 0.3], [0.004, 0.2]]))
    np.testing.assert_allclose(np.array(ring.get_xydata()), np.array([[0.004, 0.2]]))


def test_choices_are_read_as_they_were_written(tmp_path: Path) -> None:
    store = write_trials(tmp_path, study())
    assert store.choices() is None
    assert tuned_study(tmp_path, study()) is None
    publish_tuning(study(), store)
    frame = frame_of(tmp_path, study())
    assert store.choices() == choose(study(), frame, store.search_space())
    found = tuned_study(tmp_path, study())
    assert found is not None
    assert (
        found.methods["swa"].title == "SWA, constant rate (learning_rate 0.004, start_at_epoch 1)"
    )
    plain = load_study("smoke")
    assert tuned_study(tmp_path, plain) is plain
    head, *_ = (store.folder / "choices.yaml").read_text().splitlines()
    assert head.startswith("# What `swabench tune` chose")


def test_records_of_a_tuned_study_are_loaded_from_a_folder_that_was_renamed(
    tmp_path: Path,
) -> None:
    publish_tuning(study(), write_trials(tmp_path, study()))
    found = tuned_study(tmp_path, study())
    assert found is not None
    store = RecordStore(tmp_path, found)
    made_up.write_run(store, found, "swa", 1)
    renamed = store.folder.rename(tmp_path / "yesterday")
    config = tmp_path / "smoke.yaml"
    config.write_text(yaml.safe_dump(study().model_dump(mode="json"), sort_keys=False))
    frame = load(renamed, config=str(config))
    assert set(frame["method"]) == {"swa"}
    assert set(frame["seed"]) == {1}


def test_choices_of_another_search_space_are_none(tmp_path: Path) -> None:
    publish_tuning(study(), write_trials(tmp_path, study()))
    other = study({"seeds": [7, 8]})
    assert tuned_study(tmp_path, other) is None
    assert RecordStore(tmp_path, other).choices() is None
    assert tuned_study(tmp_path, study(seeds=5)) is not None


def test_choices_are_found_where_the_weights_of_the_study_are_not(tmp_path: Path) -> None:
    """A table or a claim of a tuned study can be made on a machine without its files."""
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"some")
    named = study(backbone={"weights": str(weights)})
    store = write_trials(tmp_path / "results", named)
    publish_tuning(named, store)
    store.write(
        "adam", 0, outcome("sgd-0.001", 0, averages=False),
        provenance=made_up.PROVENANCE, environment=made_up.ENVIRONMENT, seconds=1,
    )  # fmt: skip
    weights.write_bytes(b"others")
    assert tuned_study(tmp_path / "results", named) is None
    weights.unlink()
    found = tuned_study(tmp_path / "results", named)
    assert found is not None
    assert found.tuning is not None
    assert found.tuning.chosen is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rate.learning_rate: 0.002", "rate.learning_rate: 0.003"),
        ("families:", "family:"),
        ("families:", "families: ["),
        ("loss: 0.24", "loss: low"),
        ("averaging: swa", "averaging: sgd"),
    ],
)
def test_choices_that_were_spoilt_are_told_with_their_file(
    tmp_path: Path, old: str, new: str
) -> None:
    store = write_trials(tmp_path, study())
    publish_tuning(study(), store)
    path = store.folder / "choices.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=r"choices.yaml: .*delete it and run `swabench tune`"):
        tuned_study(tmp_path, study())


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_committed_choices_are_of_the_study_as_it_is(path: Path) -> None:
    """Who changes a search space tunes anew, and commits what was chosen."""
    study = load_study(path.parent.name)
    found = tuned_study(path.parents[1], study)
    assert found is not None
    assert found.tuning is not None
    assert found.tuning.chosen is not None
    assert found.tuning.chosen.sides.keys() == tuning_of(study).sides.keys()
