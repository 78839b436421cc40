"""Parts of carrying a study out: what fails alone, where sources lie, how time is shared."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from swabench.records import RecordStore
from swabench.runs import execution
from swabench.runs import experiment as experiments
from swabench.runs import materials as material
from swabench.runs.cache import Features
from swabench.runs.checkpoints import GroupCheckpoints
from swabench.runs.experiment import Experiment
from swabench.runs.learners import make_learner
from swabench.runs.materials import Materials
from swabench.runs.tuning import diverged_trials, run_trials
from swabench.study.inputs import RunOfStudy
from swabench.study.stages import Stage
from swabench.study.study import Study
from swabench.system.errors import DivergedError, InputError, SwabenchError
from swabench.system.progress import Advance, SilentProgress
from swabench.training.heads import initial_head
from tests.made_up import record_of
from tests.test_wiring import (
    CPU,
    experiment_of,
    features_of,
    put_stand_in,
    study_on,
    write_images,
)


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    put_stand_in(monkeypatch)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


# --- what fails ----------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", ["fail", "record"])
def test_a_start_that_diverges_is_named_and_the_other_seeds_go_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    def spoilt(features: int, classes: int, seed: int) -> Tensor:
        return initial_head(features, classes, seed) * (torch.nan if seed == 3 else 1)

    monkeypatch.setattr(experiments, "initial_head", spoilt)
    experiment = experiment_of(study_on(images, diverged=allowed), tmp_path)
    ways: list[tuple[str, Callable[[], int]]] = [
        ("They are recorded so", lambda: experiment.pretrain([0, 3])),
        ("No method can start there", lambda: experiment.finetune(["sgd"], [0, 3])),
    ]
    for words, do in ways[allowed == "record" :]:  # what cannot start is an error in any case
        with pytest.raises(DivergedError, match=words) as caught:
            do()
        assert "adam at seed 3 (loss not finite after epoch 1)" in str(caught.value)
        assert "seed 0" not in str(caught.value)
    assert experiment.store.missing(["adam", "sgd"], [0, 3]) == [("sgd", 3)]
    assert experiment.pretrain([0]) == 0


def test_without_any_start_nothing_is_fine_tuned(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "initial_head", lambda *of: initial_head(*of) * torch.nan)
    experiment = experiment_of(study_on(images), tmp_path)
    with pytest.raises(DivergedError, match=r"adam at seeds 0, 3 \(loss"):
        experiment.finetune(["sgd"], [0, 3])
    assert len(experiment.store.diverged(["adam"], [0, 3])) == 2
    assert len(list(experiment.store.folder.rglob("record.json"))) == 2


@pytest.mark.parametrize(("stage", "batch"), [("pretrain", 16), ("finetune", 10)])
def test_out_of_memory_names_the_settings_of_its_stage(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, batch: int
) -> None:
    make = make_learner

    def full(study: Study, own: Stage, *rest: Any) -> Any:
        if own.batch_size == batch:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make(study, own, *rest)

    monkeypatch.setattr(execution, "make_learner", full)
    with pytest.raises(SwabenchError, match=rf"lower {stage}\.batch_size \({batch}\)"):
        experiment_of(study_on(images), tmp_path).finetune(["sgd"], [0])


def test_weights_are_not_exported_onto_other_features(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment_of(study_on(images), tmp_path).pretrain([0])
    assert experiment_of(study_on(images), tmp_path).store.find("adam", 0)

    def others(pixels: Any, *_: Any, **__: Any) -> Features:
        return Features(features_of(pixels), "another machine's")

    monkeypatch.setattr(material, "frozen_features", others)
    monkeypatch.setattr(experiments, "plain_state", lambda *_: {})
    with pytest.raises(InputError, match="other data, backbone weights or features"):
        experiment_of(study_on(images), tmp_path).export("adam", 0)


def test_weights_of_no_run_are_refused_before_anything_is_computed(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "Materials", None)
    with pytest.raises(InputError, match="no record of adam at seed 3; run it first"):
        experiment_of(study_on(images), tmp_path).export("adam", 3)


# --- studies that start from another one's run ------------------------------------------------


@pytest.fixture
def source(images: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study from whose pretraining every other study here starts."""
    found = study_on(images, name="source")
    run = RunOfStudy(study="source", method="adam", seed=3)
    monkeypatch.setattr(
        experiments, "starting_run", lambda study: None if study.name == "source" else (found, run)
    )
    monkeypatch.setattr(Experiment, "export", lambda self, method, seed: {})
    return found


@pytest.mark.parametrize("apart", [True, False])
def test_what_a_study_starts_from_lies_where_it_was_told(
    images: Path, tmp_path: Path, source: Study, apart: bool
) -> None:
    own, others = tmp_path / "own", tmp_path / "others"
    experiment = Experiment(
        study_on(images, name="other"), own, CPU, tmp_path / "cache", SilentProgress(),
        other_results=others if apart else None,
    )  # fmt: skip
    experiment.pretrain([0])
    found, elsewhere = (RecordStore(place, source) for place in (own, others))
    assert (elsewhere if apart else found).find("adam", 3)
    assert not (found if apart else elsewhere).find("adam", 3)
    assert not (elsewhere if apart else found).find("adam", 0)


@pytest.mark.parametrize("allowed", ["fail", "record"])
def test_a_study_that_starts_from_a_run_that_diverged_cannot_begin(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    source = study_on(images, name="source", diverged=allowed)
    run = RunOfStudy(study="source", method="adam", seed=3)
    monkeypatch.setattr(
        experiments, "starting_run", lambda study: None if study.name == "source" else (source, run)
    )
    monkeypatch.setattr(experiments, "initial_head", lambda *of: initial_head(*of) * torch.nan)
    for _ in range(2):  # now, and where it is recorded
        with pytest.raises(InputError, match=r"adam.* at seed 3 \(loss not finite after epoch 1"):
            experiment_of(study_on(images, name="other"), tmp_path).pretrain([0])
    assert not (tmp_path / "results" / "other" / "runs").exists()


def tuned_study(images: Path, rates: list[float]) -> Study:
    tuning = {
        "seeds": [7],
        "trials_per_family": len(rates),
        "families": {"sgd": {"rate.learning_rate": rates}},
        "sides": {},
    }
    return study_on(images, name="tuned", tuning=tuning, rate_sweep=None)


def maker(folder: Path) -> Callable[..., Experiment]:
    """Makes experiments as the command line does."""

    def make(study: Study, results: Path, **options: Any) -> Experiment:
        return Experiment(study, results, CPU, folder / "cache", SilentProgress(), **options)

    return make


def test_trials_start_from_runs_among_the_studies(
    images: Path, tmp_path: Path, source: Study
) -> None:
    """Not from one that is run for the trials alone, beside their own records."""
    results = tmp_path / "results"
    study = tuned_study(images, [0.001])
    assert run_trials(study, results, maker(tmp_path)) == 1
    assert RecordStore(results, source).find("adam", 3)
    assert len(list(results.rglob("source"))) == 1


def test_trials_that_diverge_are_recorded_once_like_the_others(
    images: Path, tmp_path: Path
) -> None:
    study = tuned_study(images, [0.001, 0.002, 1e38])
    for done in (3, 0):
        assert run_trials(study, tmp_path, maker(tmp_path)) == done
        (lost,) = diverged_trials(study, RecordStore(tmp_path, study))
        assert (lost.method, lost.seed) == ("sgd-1e38", 7)


# --- what is recorded and told ---------------------------------------------------------------


def test_a_groups_time_is_shared_by_its_runs(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the seconds of all runs add up to what they took."""
    monkeypatch.setattr(GroupCheckpoints, "seconds", 12.0)
    experiment = experiment_of(study_on(images), tmp_path)
    experiment.finetune(["sgd"], [0])
    assert record_of(experiment.store, "adam", 0).seconds == pytest.approx(12)
    records = [record_of(experiment.store, name, 0) for name in experiment.study.all_methods]
    assert len(records) > 5
    assert sum(record.seconds for record in records) == pytest.approx(12, abs=0.01)


def test_a_landscape_is_recorded_with_what_fine_tuning_was_made_from(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretraining of a head has features of its own."""
    base = study_on(images).model_dump()
    finetune = {**base["finetune"], "trainable": "layer4", "batchnorm": "frozen"}
    backbone = {**base["backbone"], "standardize_features": False}
    study = study_on(images, finetune=finetune, backbone=backbone)
    written: list[dict[str, Any]] = []

    def make(_: Study, __: RecordStore, materials: Materials) -> Any:
        materials.splits("head")
        materials.splits("layer4")
        return SimpleNamespace(measure=lambda part, seed: {part: seed})

    def write(self: RecordStore, part: str, seed: int, tables: Any, **rest: Any) -> None:
        written.append({"part": part, "seed": seed, "tables": tables, **rest})

    clock = iter(range(0, 100, 7))
    monkeypatch.setattr(experiments, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(experiments, "unsurveyable", lambda *_: "")
    monkeypatch.setattr(experiments, "missing_parts", lambda *_: [("rays", 0), ("lines", 3)])
    monkeypatch.setattr(experiments, "make_surveyor", make)
    monkeypatch.setattr(RecordStore, "write_landscape", write)
    assert experiment_of(study, tmp_path).survey([0, 3]) == 2
    for entry, (part, seed) in zip(written, [("rays", 0), ("lines", 3)], strict=True):
        assert (entry["part"], entry["seed"], entry["tables"]) == (part, seed, {part: seed})
        assert set(entry["provenance"]["features"]) == {"layer4"}
        assert entry["environment"]["device"] == "cpu"
        assert entry["seconds"] == 7


def test_pretraining_keeps_the_weights_that_methods_start_from(
    images: Path, tmp_path: Path
) -> None:
    """Whatever its stage says of weights, as only those of fine-tuned runs can be done without."""
    pretrain = {**study_on(images).pretrain.model_dump(), "keep_weights": "none"}
    experiment = experiment_of(study_on(images, pretrain=pretrain), tmp_path)
    assert experiment.finetune(["sgd"], [0]) > 1
    assert "weights/iterate" in record_of(experiment.store, "adam", 0).arrays()


def test_features_are_kept_as_often_as_states(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One setting says how much work an interruption may cost."""
    asked: list[float] = []

    def features(pixels: Any, *_: object, save_every: float, **__: object) -> Features:
        asked.append(save_every)
        return Features(features_of(pixels), "none")

    monkeypatch.setattr(material, "frozen_features", features)
    study = study_on(images)
    made = Experiment(study, tmp_path, CPU, tmp_path / "cache", SilentProgress(), save_every=7.0)
    made.pretrain([0])
    assert asked
    assert set(asked) == {7.0}


def test_progress_says_which_split_and_backbone_it_is_at(images: Path, tmp_path: Path) -> None:
    told: list[str] = []

    class Told(SilentProgress):
        @contextmanager
        def task(self, name: str, total: int, unit: str) -> Iterator[Advance]:
            told.append(f"{name}: {total} {unit}")
            yield lambda units, before=False: None

    study = study_on(images, seed_draws=["split"], rate_sweep=None)
    experiment = Experiment(study, tmp_path, CPU, tmp_path / "cache", Told())
    experiment.finetune(["sgd"], [0, 3])
    runs = 3 * len(study.all_methods)
    assert told == [
        f"{stage}, part {part} of 2: {total} epochs"
        for part in (1, 2)
        for stage, total in (("pretraining", 2), ("fine-tuning", runs))
    ]


def test_a_group_that_stopped_while_it_was_recorded_is_recorded_whole(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the one run that was asked for has its record; but at no other seed."""
    experiment = experiment_of(study_on(images), tmp_path)
    experiment.pretrain([0, 1])
    write = RecordStore.write

    def killed(store: RecordStore, method: str, *given: Any, **named: Any) -> None:
        write(store, method, *given, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RecordStore, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            experiment.finetune(["sgd"], [0])
    names = list(experiment.study.all_methods)
    assert experiment.store.find("sgd", 0)
    assert len(experiment.store.missing(names, [0])) == len(names) - 1
    assert experiment.finetune(["swa"], [1]) == len(names)
    assert len(experiment.store.missing(names, [0])) == len(names) - 1
    assert experiment.finetune(["sgd"], [0]) == len(names) - 1
    assert not experiment.store.under_way()


def test_a_methods_own_optimizer_trains_it(images: Path, tmp_path: Path) -> None:
    """Beside one that has the stage's, at the same rate."""
    rate = {"schedule": "constant", "learning_rate": 0.001}
    methods = {
        "plain": {"title": "By the stage's", "rate": rate},
        "own": {"title": "By its own", "rate": rate, "optimizer": {"name": "adam"}},
    }
    study = study_on(images, methods=methods, rate_sweep=None, claims={}, reference="plain")
    experiment = experiment_of(study, tmp_path)
    experiment.finetune(["plain", "own"], [0])
    start, plain, own = (
        record_of(experiment.store, name, 0).arrays()["weights/iterate"]
        for name in ("adam", "plain", "own")
    )
    # Adam's first steps are about as long as its rate, whatever the gradient.
    steps = 3 * 5
    assert abs(own - start).max() == pytest.approx(steps * 0.001, rel=0.5)
    assert abs(plain - own).max() > 1e-4


def test_records_name_the_features_that_count_for_them(images: Path, tmp_path: Path) -> None:
    """Those that a stage trains on, and those that it is standardised by."""
    found = {}
    for standardized in (True, False):
        backbone = {**study_on(images).backbone.model_dump(), "standardize_features": standardized}
        study = study_on(images, backbone=backbone)
        materials = Materials(study, CPU, tmp_path, SilentProgress())
        materials.splits("head")
        materials.splits("layer4")
        found[standardized] = {
            boundary: set(materials.provenance(boundary)["features"])
            for boundary in ("head", "layer4", "all")
        }
    assert found[False] == {"head": {"head"}, "layer4": {"layer4"}, "all": set()}
    assert found[True] == {"head": {"head"}, "layer4": {"head", "layer4"}, "all": {"head"}}
