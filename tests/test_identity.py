"""Identities: they change with every setting that a run depends on, and with nothing else."""

import copy
from collections.abc import Iterator
from typing import Annotated, Any, get_args

import pytest
from pydantic import BaseModel

from swabench.study.averaging import AveragingPlan
from swabench.study.identity import Identities, NamedFiles
from swabench.study.inputs import BackboneSettings, DataSettings
from swabench.study.landscape import PARTS
from swabench.study.loading import load_study
from swabench.study.methods import Method
from swabench.study.optimizers import Optimizer
from swabench.study.schedules import Schedule
from swabench.study.settings import AddedLater, Settings, what_results_depend_on
from swabench.study.stages import Pretraining, Stage
from swabench.study.study import Study

# All settings are in use here: BatchNorm trains, and every schedule has a method.
WHOLE: dict[str, Any] = {
    "name": "whole",
    "title": "Every setting",
    "data": {"folder": "/somewhere", "selection_images": 10},
    "backbone": {"standardize_features": False},
    "pretrain": {
        "name": "adam",
        "title": "Adam",
        "paper_accuracy": 92.0,
        "trainable": "layer4",
        "epochs": 2,
        "optimizer": {"name": "adam"},
        "rate": {"schedule": "constant", "learning_rate": 0.001},
    },
    "finetune": {"trainable": "layer4", "epochs": 6, "optimizer": {"name": "sgd"}},
    "methods": {
        "constant": {
            "title": "Constant",
            "paper_accuracy": 93.0,
            "rate": {"schedule": "constant", "learning_rate": 0.005},
            "averaging": {"capture_every_epochs": 1},
        },
        "multiplicative": {
            "title": "Multiplicative",
            "rate": {
                "schedule": "multiplicative",
                "learning_rate": 0.01,
                "factor": 0.5,
                "every_epochs": 2,
            },
        },
        "cyclical": {
            "title": "Cyclical",
            "rate": {"schedule": "cyclical", "high": 0.01, "low": 0.005},
        },
        "triangular": {
            "title": "Triangular",
            "rate": {
                "schedule": "triangular",
                "low": 0.005,
                "high": 0.01,
                "up_epochs": 1,
                "down_epochs": 2,
            },
        },
    },
    "reference": "constant",
    "seeds": 2,
}
for kind in ("linear", "cosine"):
    rate = {"schedule": kind, "learning_rate": 0.01}
    WHOLE["methods"][kind] = {"title": kind, "rate": rate}
for kind, own in {
    "exponential": {"half_life_epochs": 2},
    "last": {"captures": 2},
    "score-weighted": {"power": 1},
    "greedy-soup": {},
    "newest": {},
}.items():
    WHOLE["methods"][kind] = {
        "title": kind,
        "rate": {"schedule": "constant", "learning_rate": 0.01},
        "averaging": {"plan": kind, **own},
    }

# Another value for every setting: a setting without one here fails a test below.
CHANGES: dict[str, Any] = {
    "data.dataset": "fashion-mnist",
    "data.image_size": 32,
    "data.validation_images": 100,
    "data.split_seed": 1,
    "data.normalization": "imagenet",
    "data.training_images": 100,
    "data.test_images": 100,
    "backbone.weights": "IMAGENET1K_V1",
    "backbone.seed": 1,
    "backbone.standardize_features": True,
    "backbone.precision": "bfloat16",
    "backbone.reestimate_batchnorm": True,
    "backbone.zero_init_residual": True,
    "pretrain.rate.learning_rate": 0.002,
    "pretrain.optimizer.beta1": 0.8,
    "pretrain.optimizer.beta2": 0.99,
    "pretrain.optimizer.weight_decay": 0.1,
    "finetune.optimizer.momentum": 0.8,
    "finetune.optimizer.weight_decay": 0.1,
    "finetune.optimizer.nesterov": True,
    "methods.constant.rate.learning_rate": 0.006,
    "methods.constant.averaging": None,
    "methods.constant.averaging.include_start": False,
    "methods.exponential.averaging.half_life_epochs": 3,
    "methods.exponential.averaging.debias": False,
    "methods.last.averaging.captures": 3,
    "methods.score-weighted.averaging.power": 100,
    **{
        f"methods.{method}.averaging.{key}": value
        for method in ("constant", "exponential", "last", "score-weighted", "greedy-soup", "newest")
        for key, value in {
            "capture_every_epochs": 0.5,
            "start_at_epoch": 2,
            "ensemble": False,
            "phases": 2,
        }.items()
        if (method, key) != ("greedy-soup", "phases")
    },
    "data.selection_images": 50,
    "methods.multiplicative.rate.learning_rate": 0.02,
    "methods.multiplicative.rate.factor": 0.25,
    "methods.multiplicative.rate.every_epochs": 3,
    "methods.cyclical.rate.high": 0.02,
    "methods.cyclical.rate.low": 0.004,
    "methods.cyclical.rate.cycle_epochs": 2,
    "methods.triangular.rate.low": 0.004,
    "methods.triangular.rate.high": 0.02,
    "methods.triangular.rate.up_epochs": 2,
    "methods.triangular.rate.down_epochs": 1,
    "methods.linear.rate.learning_rate": 0.02,
    "methods.cosine.rate.learning_rate": 0.02,
    **{
        f"methods.{schedule}.rate.{ramp}": 1
        for schedule in ("constant", "multiplicative", "linear", "cosine", "cyclical", "triangular")
        for ramp in ("warmup_epochs", "cooldown_epochs")
    },
    "pretrain.rate.warmup_epochs": 1,
    **{
        f"{stage}.{key}": value
        for stage in ("pretrain", "finetune")
        for key, value in {
            "epochs": 12,
            "batch_size": 64,
            "batchnorm": "first-epoch",
            "precision": "bfloat16",
            "evaluation_batch_size": 500,
            "score_every_epochs": 2,
        }.items()
    },
    "finetune.trainable": "all",
    "pretrain.trainable": "head",
}

for kind, changes in {
    "schedule-free-sgd": {"momentum": 0.8, "weight_decay": 0.1},
    "lookahead": {"momentum": 0.8, "weight_decay": 0.1, "nesterov": True, "steps": 7, "alpha": 0.3},
}.items():
    WHOLE["methods"][kind] = {
        "title": kind,
        "rate": {"schedule": "constant", "learning_rate": 0.01},
        "optimizer": {"name": kind},
    }
    CHANGES |= {f"methods.{kind}.optimizer.{key}": value for key, value in changes.items()}
CHANGES["methods.constant.optimizer"] = {"name": "lookahead"}

CHANGES_NOTHING: dict[str, Any] = {
    "data.folder": "/somewhere/else",
    "backbone.cache_features": False,
    "pretrain.keep_weights": "none",
    "finetune.keep_weights": "none",
    "pretrain.name": "start",
    "pretrain.title": "Another title",
    "pretrain.paper_accuracy": 1.0,
    "pretrain.minimum_accuracy": 90.0,
    "methods.constant.title": "Another title",
    "methods.constant.paper_accuracy": 1.0,
    "title": "Another title",
    "seeds": 9,
    "confidence": 0.9,
    "reference": "cyclical",
    "claims": {"sgd": "constant", "margin_points": 0.3},
    "landscape": {"training_images": 5},
    "seed_draws": ["head", "order"],
}


def changed(key: str, value: Any) -> Study:
    content = copy.deepcopy(WHOLE)
    *sections, last = key.split(".")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = value
    if key == "backbone.zero_init_residual":  # only where all layers train
        content["pretrain"]["trainable"] = content["finetune"]["trainable"] = "all"
    # Where a change does not fit a random backbone, weights from a file make it fit.
    if key in ("backbone.standardize_features", "pretrain.trainable"):
        content["backbone"] = {"weights": "w.pth", "standardize_features": False}
        if key == "pretrain.trainable":
            content["finetune"]["batchnorm"] = "frozen"
            return Study.model_validate(content)
        content["backbone"]["standardize_features"] = value
    return Study.model_validate(content)


def identity(study: Study, name: str, seed: int = 0, files: NamedFiles | None = None) -> str:
    return Identities(study, files or NamedFiles()).run(name, seed)


@pytest.mark.parametrize("key", CHANGES)
def test_changes_with_every_setting_that_a_run_depends_on(key: str) -> None:
    before, after = Study.model_validate(WHOLE), changed(key, CHANGES[key])
    if key in ("backbone.standardize_features", "backbone.zero_init_residual"):
        before = changed(key, False)  # both need what else goes with the change
    parts = key.split(".")
    name = parts[1] if parts[0] == "methods" else "constant"
    assert identity(before, name) != identity(after, name)
    if parts[0] == "methods":
        others = [other for other in before.methods if other != name]
        assert all(identity(before, other) == identity(after, other) for other in others)
    if parts[0] in ("data", "backbone", "pretrain"):
        assert identity(before, "adam") != identity(after, "adam")
    if parts[0] in ("finetune", "methods"):
        assert identity(before, "adam") == identity(after, "adam")


@pytest.mark.parametrize("key", CHANGES_NOTHING)
def test_stays_with_what_changes_no_result(key: str) -> None:
    before, after = Study.model_validate(WHOLE), changed(key, CHANGES_NOTHING[key])
    for name in before.methods:
        assert identity(before, name) == identity(after, name)
    assert identity(before, "adam") == identity(after, after.pretrain.name)


def fields(owner: type[BaseModel], prefix: str) -> Iterator[str]:
    for name in owner.model_fields:
        yield f"{prefix}.{name}"


def kinds_of(union: Any, key: str) -> dict[str, type[BaseModel]]:
    """The settings of a union, by the word that says which they are."""
    found = get_args(get_args(union)[0])
    return {get_args(kind.model_fields[key].annotation)[0]: kind for kind in found}


def test_every_setting_has_a_case() -> None:
    """A new setting needs a case above: does a run depend on it, and was it there before?"""
    schedules = kinds_of(Schedule, "schedule")
    plans = {
        "constant" if n == "mean" else n: p for n, p in kinds_of(AveragingPlan, "plan").items()
    }
    optimizers = kinds_of(Optimizer, "name")
    stages = {"adam": "pretrain", "sgd": "finetune"}  # whose optimizers they are above
    owners = {name: stages.get(name, f"methods.{name}") for name in optimizers}
    expected = {
        *fields(DataSettings, "data"),
        *fields(BackboneSettings, "backbone"),
        *fields(Pretraining, "pretrain"),
        *fields(Stage, "finetune"),
        *fields(Method, "methods.constant"),
        *(key for name, p in plans.items() for key in fields(p, f"methods.{name}.averaging")),
        *(key for n, o in optimizers.items() for key in fields(o, f"{owners[n]}.optimizer")),
        *(key for name, s in schedules.items() for key in fields(s, f"methods.{name}.rate")),
    }
    # What is a section, or a word that says which kind of section follows.
    sections = {
        *(f"{stage}.{part}" for stage in ("pretrain", "finetune") for part in ("optimizer",)),
        *(f"{owner}.optimizer.name" for owner in owners.values()),
        *(f"methods.{name}.rate.schedule" for name in schedules),
        *(f"methods.{name}.averaging.plan" for name in plans),
        "methods.greedy-soup.averaging.phases",  # always 1
        "methods.constant.rate",
        "pretrain.rate",
    }
    assert expected - sections <= {*CHANGES, *CHANGES_NOTHING}


def test_differs_between_all_runs() -> None:
    study = Study.model_validate(WHOLE)
    found = {identity(study, name, seed) for name in study.run_names for seed in range(3)}
    assert len(found) == 3 * len(study.run_names)


def test_another_schedule_or_optimizer_is_another_run() -> None:
    base = Study.model_validate(WHOLE)
    same = {"schedule": "multiplicative", "learning_rate": 0.005, "factor": 1, "every_epochs": 1}
    assert identity(base, "constant") != identity(
        changed("methods.constant.rate", same), "constant"
    )
    adam = changed("finetune.optimizer", {"name": "adam"})
    assert identity(base, "constant") != identity(adam, "constant")


def test_files_count_by_their_bytes() -> None:
    study = Study.model_validate(WHOLE)
    files = [NamedFiles(), NamedFiles(data="a"), NamedFiles(data="b"), NamedFiles(weights="a")]
    assert len({identity(study, "constant", files=each) for each in files}) == len(files)
    assert len({identity(study, "adam", files=each) for each in files}) == len(files)


def test_a_weights_files_path_does_not_count() -> None:
    places = [changed("backbone.weights", place) for place in ("/here/w.pth", "/there/v.pth")]
    found = [identity(study, "constant", files=NamedFiles(weights="a")) for study in places]
    assert found[0] == found[1]


@pytest.mark.parametrize("key", ["batchnorm", "precision", "evaluation_batch_size"])
def test_what_means_nothing_to_a_final_layer_is_left_out(key: str) -> None:
    whole = load_study("mnist").model_dump(mode="json")
    before = Study.model_validate(whole)
    for stage in ("pretrain", "finetune"):
        whole[stage][key] = CHANGES[f"{stage}.{key}"]
    assert identity(before, "swa") == identity(Study.model_validate(whole), "swa")


def test_known_identities_stay() -> None:
    """Records of users are found by these. A change here orphans them all: is it meant?"""
    mnist, every_setting = load_study("mnist"), Study.model_validate(WHOLE)
    # As the default study was before it had selection images.
    data = mnist.data.model_copy(update={"selection_images": 0})
    mnist = mnist.model_copy(update={"data": data})
    known = {
        "adam": "8aaffd9515f1571a",
        "sgd": "9be56c3519d5e3cc",
        "swa-cyclical": "9e95502cb3c3d006",
        "pswa": "9293d0a44604fe9d",
    }
    assert {name: identity(mnist, name) for name in known} == known
    known = {
        "adam": "b94485dbaa24b611",
        "constant": "0ac3db5edf801011",
        "multiplicative": "4e54bab75c570b88",
        "cyclical": "c163a26ec086c251",
        "triangular": "fff6cfd9d750e925",
        "linear": "a6ee386ce9b2a0fb",
        "cosine": "290110bd8f23192c",
        "exponential": "21bf89c3a8431a13",
        "last": "091ef47bb2663510",
        "score-weighted": "59efb061470ab375",
        "greedy-soup": "11fa037019e80fce",
        "newest": "9e4be76dbcd5d43f",
    }
    assert {name: identity(every_setting, name, seed=1) for name in known} == known


KNOWN_BY_TURNS = [
    "6251b0b4ffc9b7b0",
    "09d977702ba81570",
    "70b130db13781cca",
    "753d3c63be3c35a9",
]
BY_TURNS: dict[str, Any] = {
    "seed_draws": ["head", "order", "split", "backbone"],
    "one_source_at_a_time": True,
}


def drawing(**changes: Any) -> Study:
    return Study.model_validate({**load_study("mnist").model_dump(), **changes})


def test_what_seeds_draw_counts_by_what_is_drawn() -> None:
    mnist, turns = load_study("mnist"), drawing(**BY_TURNS)
    # Named as they are anyhow, nothing changes.
    named = drawing(seed_draws=["order", "head"])
    assert identity(named, "swa", 3) == identity(mnist, "swa", 3)
    # By turns: heads at seeds 0, 4, …; orders at 1, 5, …; splits at 2, 6, …; backbones at 3, 7, …
    found = {identity(turns, name, seed) for name in ("adam", "swa") for seed in range(12)}
    assert len(found) == 24
    assert found.isdisjoint(identity(mnist, name, s) for name in ("adam", "swa") for s in range(12))
    split = {**mnist.data.model_dump(), "split_seed": 2}
    assert identity(turns, "swa", 6) == identity(drawing(data=split), "swa", 0)
    backbone = {**mnist.backbone.model_dump(), "seed": 2}
    assert identity(turns, "swa", 7) == identity(drawing(backbone=backbone), "swa", 0)
    assert identity(turns, "swa", 4) == identity(drawing(seed_draws=["head"]), "swa", 2)
    assert identity(turns, "swa", 5) == identity(drawing(seed_draws=["order"]), "swa", 2)
    both = drawing(seed_draws=["head", "order", "split"])
    assert identity(both, "swa", 2) == identity(drawing(data=split), "swa", 2)


def test_known_identities_of_drawn_sources_stay() -> None:
    """As above: records are found by these."""
    data = {**load_study("mnist").data.model_dump(), "selection_images": 0}
    turns = drawing(**BY_TURNS, data=data, controls=None)
    assert [identity(turns, "swa", seed) for seed in range(4)] == KNOWN_BY_TURNS


def test_known_identities_of_landscapes_stay() -> None:
    """As above, of what was measured around weights; in it the part's own name counts, too."""
    found = Identities(Study.model_validate(WHOLE), NamedFiles())
    known = {
        "lines": "41ff9329f137187d",
        "segments": "4953f3be4535005f",
        "plane": "bee1250ebe7a505b",
        "rays": "db5905c74dc57788",
        "sharpness": "4f304ae444f27109",
        "hessian": "9b58047dc07433c4",
    }
    assert {part: found.landscape(part, 1, {"adam": "a", "sgd": "b"}) for part in PARTS} == known


def test_the_stages_optimizer_spelled_out_is_the_same_run() -> None:
    spelled = changed("methods.constant.optimizer", WHOLE["finetune"]["optimizer"])
    before = Study.model_validate(WHOLE)
    assert identity(spelled, "constant") == identity(before, "constant")
    assert spelled.row_method("constant").optimizer is None
    # Pretraining's optimizer is another one here.
    other = changed("methods.constant.optimizer", WHOLE["pretrain"]["optimizer"])
    assert identity(other, "constant") != identity(before, "constant")
    assert other.row_method("constant").optimizer == before.pretrain.optimizer


def test_a_setting_added_later_is_left_out_while_neutral() -> None:
    class Before(Settings):
        rate: float = 1.0

    class Inner(Before):
        warmup: Annotated[int, AddedLater(neutral=0)] = 0

    class OldOuter(Settings):
        inner: Before = Before()

    class Outer(Settings):
        inner: Inner = Inner()

    assert what_results_depend_on(Inner()) == what_results_depend_on(Before())
    assert what_results_depend_on(Outer()) == what_results_depend_on(OldOuter())
    assert what_results_depend_on(Inner(warmup=3)) == {"rate": 1.0, "warmup": 3}
    # A default is no neutral value: what is not marked always counts.
    assert what_results_depend_on(Before()) == {"rate": 1.0}


def test_a_landscape_depends_on_the_weights_it_looked_at() -> None:
    identities = Identities(load_study("mnist"), NamedFiles())
    weights = {"adam": "a", "sgd": "b"}
    found = [
        identities.landscape("lines", 0, weights),
        identities.landscape("lines", 1, weights),
        identities.landscape("segments", 0, weights),
        identities.landscape("lines", 0, {"adam": "a", "sgd": "c"}),
        identities.landscape("lines", 0, {"sgd": "b", "adam": "a"}),
    ]
    assert len(set(found)) == len(found)


def test_a_landscape_depends_on_what_it_is_measured_with() -> None:
    content = load_study("mnist").model_dump()
    before = Identities(Study.model_validate(content), NamedFiles())
    changes = (("training_images", 123), ("test_images", 9), ("seed", 7), ("lines", {"points": 9}))
    for key, value in changes:
        changed = {**content, "landscape": {**content["landscape"], key: value}}
        after = Identities(Study.model_validate(changed), NamedFiles())
        assert after.landscape("lines", 0, {"a": "b"}) != before.landscape("lines", 0, {"a": "b"})
