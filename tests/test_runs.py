"""Carrying a study out: what is trained together, what is trained again, and from which bytes."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from swabench.analysis.frame import collect
from swabench.analysis.publish import Publication
from swabench.data.idx import encode_idx
from swabench.landscape.parts import missing_parts
from swabench.records import Record, RecordStore
from swabench.runs import execution, learners
from swabench.runs import features as feature_cache
from swabench.runs.experiment import Experiment
from swabench.runs.groups import groups_of, missing_groups
from swabench.study.averaging import EqualMean
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.system.device import use_threads
from swabench.system.errors import InputError, SwabenchError
from swabench.system.progress import SilentProgress
from swabench.training.measurement import Measurement, Statistics
from swabench.training.observers import Outcome
from swabench.training.replay import is_of_epochs
from tests.made_up import last_of

CPU = torch.device("cpu")


def write_images(folder: Path, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    for part, count in (("train", 60), ("t10k", 30)):
        labels = (np.arange(count) % 3).astype(np.uint8)
        images = rng.integers(0, 200, (count, 8, 8), dtype=np.uint8)
        images[np.arange(count), labels * 2] = 255  # a bright row tells the class
        (folder / f"{part}-images-idx3-ubyte").write_bytes(encode_idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(encode_idx(labels))


def small_study(folder: Path, **changes: Any) -> Study:
    whole = load_study("smoke").model_dump()
    whole["data"] = {
        "dataset": "folder",
        "folder": folder / "images",
        "image_size": 8,
        "validation_images": 12,
    }
    whole["finetune"]["batch_size"] = 16
    few = {"points": 3, "seeds": None}
    whole["landscape"] = {
        "lines": few,
        "segments": few,
        "plane": {"points": 3, "seeds": 1},
        "rays": {"points": 3, "directions": 2, "seeds": 1},
        "sharpness": {"steps": 1, "starts": 1, "seeds": 1},
        "hessian": {"probes": 2, "seeds": 1},
    }
    whole |= {"controls": None, "name": "small", "seeds": [0]}
    return Study.model_validate({**whole, **changes})


def experiment(folder: Path, study: Study, results: str = "results") -> Experiment:
    return Experiment(study, folder / results, CPU, folder / "cache", SilentProgress())


def finetune(folder: Path, study: Study, *names: str, results: str = "results") -> RecordStore:
    made = experiment(folder, study, results)
    made.finetune(list(names) or list(study.all_methods), list(study.seeds))
    return made.store


def digests(store: RecordStore, study: Study) -> dict[tuple[str, int], str]:
    records = {(n, s): store.find(n, s) for n in study.run_names for s in study.seeds}
    return {key: record.arrays_sha256 for key, record in records.items() if record}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study; tests copy it."""
    folder = tmp_path_factory.mktemp("whole")
    write_images(folder / "images", seed=0)
    made = experiment(folder, small_study(folder))
    made.finetune(list(made.study.all_methods), [0])
    made.survey([0])
    return folder


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# --- what trains together --------------------------------------------------------------------


def test_one_method_is_trained_as_all_are(copied: Path) -> None:
    """Another composition of the stack rounds otherwise, so the whole group trains."""
    study = small_study(copied)
    expected = digests(RecordStore(copied / "results", study), study)
    store = finetune(copied, study, "swa", results="other")
    assert digests(store, study) == expected


def test_an_interrupted_study_gives_what_a_whole_one_does(copied: Path) -> None:
    study = small_study(copied)
    store = RecordStore(copied / "results", study)
    expected = digests(store, study)
    kept = {"adam", "sgd", "pswa"}
    for name in set(study.run_names) - kept:
        shutil.rmtree(store.folder / "runs" / name)
    finetune(copied, study, "swa-cyclical")
    assert digests(store, study) == expected


def test_what_a_changed_study_adds_trains_by_itself(copied: Path) -> None:
    study = small_study(copied)
    before = digests(RecordStore(copied / "results", study), study)
    added = {**study.model_dump()["methods"], "more": study.methods["swa"].model_dump()}
    added["more"]["rate"]["learning_rate"] = 0.03
    changed = small_study(copied, methods=added)
    store = finetune(copied, changed)
    assert before.items() <= digests(store, changed).items()
    record, older = store.find("more", 0), store.find("swa", 0)
    assert record is not None
    assert list(record.trained_with) == ["more"]
    assert older is not None
    assert "more" not in older.trained_with


def test_runs_at_one_rate_are_one_trajectory(copied: Path) -> None:
    study = small_study(copied)
    store = RecordStore(copied / "results", study)
    sgd, swept = store.find("sgd", 0), store.find(study.sweep_cells["swa", 0.005], 0)
    assert sgd is not None
    assert swept is not None
    assert swept.averages
    assert np.array_equal(sgd.arrays()["weights/iterate"], swept.arrays()["weights/iterate"])


def test_of_networks_those_on_one_trajectory_train_together(copied: Path) -> None:
    study = small_study(copied)
    network = small_study(
        copied,
        methods={
            **{name: study.methods[name].model_dump() for name in ("sgd", "swa")},
            "plain": {"title": "At SWA's rate", "rate": study.methods["swa"].rate.model_dump()},
        },
        rate_sweep=None,
        claims={},
        backbone={**study.backbone.model_dump(), "cache_features": False},
    )
    made = experiment(copied, network, "networks")
    groups = groups_of(network, made.store, ["sgd", "swa"], 0, 3)
    assert [group.names for group in groups] == [["sgd"], ["swa", "plain"]]


def test_methods_do_not_start_from_a_pretraining_that_failed(copied: Path) -> None:
    study = small_study(copied, seeds=[0, 1])
    made = experiment(copied, study, "starts")
    made.pretrain([0, 1])
    records = (made.store.find("adam", seed) for seed in (0, 1))
    reached = [record.final_accuracy("validation") for record in records if record]
    low, high = sorted(reached)
    assert low < high

    def demanding(least: float) -> Study:
        return small_study(
            copied,
            seeds=[0, 1],
            pretrain={**study.pretrain.model_dump(), "minimum_accuracy": least},
        )

    with pytest.raises(SwabenchError, match=rf"adam reaches {low:.1f} % at seed \d on the") as told:
        finetune(copied, demanding((low + high) / 2), results="starts")
    assert told.value.exit_code == 1
    assert f"{high:.1f} %" not in str(told.value).split(" on the ")[0]
    assert not made.store.find("sgd", 0)
    store = finetune(copied, demanding(low), "sgd", results="starts")  # the same starts will do
    assert store.find("sgd", 0)


def test_a_start_is_judged_by_the_treatment_of_the_table() -> None:
    record = record_of({"running": 60.0, "re-estimated": 93.0})
    assert record.final_accuracy("validation") == 93.0
    with pytest.raises(ValueError, match="not measured on the test images"):
        record.final_accuracy("test")


def record_of(validation: dict[Statistics, float]) -> Record:
    """A network's pretraining with these accuracies after two epochs."""
    history = tuple(
        Measurement(epoch, "iterate", "validation", accuracy - 2 + epoch, 0.3, treatment)
        for epoch in (1, 2)
        for treatment, accuracy in reversed(validation.items())
    )
    nothing: dict[str, Any] = {"provenance": {}, "environment": {}, "arrays_sha256": ""}
    return Record("adam", 0, "", {}, (), False, history, seconds=1, folder=Path(), **nothing)


def test_a_further_average_of_a_recorded_trajectory_needs_no_training(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(copied)
    rate = study.methods["swa"].model_dump()["rate"]
    further = {
        "last": {"title": "", "rate": rate, "averaging": {"plan": "last", "captures": 2}},
        "plain": {"title": "", "rate": rate},
        "often": {"title": "", "rate": rate, "averaging": {"capture_every_epochs": 0.5}},
    }
    changed = small_study(copied, methods={**study.model_dump()["methods"], **further})
    made = experiment(copied, changed)
    trained: list[int] = []
    make = learners.make_learner

    def noted(*given: Any) -> Any:
        trained.append(given[4])
        return make(*given)

    monkeypatch.setattr(execution, "make_learner", noted)
    assert made.finetune(["last", "plain"], [0]) == 2
    assert trained == []
    swa, last, plain = (made.store.find(name, 0) for name in ("swa", "last", "plain"))
    assert swa is not None
    assert last is not None
    assert plain is not None
    snapshots = swa.arrays()["trajectory"]
    np.testing.assert_array_equal(last.arrays()["trajectory"], snapshots)
    np.testing.assert_allclose(
        last.arrays()["weights/average"], snapshots[-2:].mean(0), rtol=1e-5, atol=1e-7
    )
    np.testing.assert_array_equal(
        plain.arrays()["weights/iterate"], swa.arrays()["weights/iterate"]
    )
    for split in ("validation", "test"):
        own, its = last_of(plain, "iterate", split), last_of(swa, "iterate", split)
        assert own.accuracy == its.accuracy
        assert own.loss == pytest.approx(its.loss, rel=1e-5)
    assert last.provenance["snapshots"] == swa.arrays_sha256
    assert list(last.trained_with) == ["last", "plain"]
    # What is captured within epochs is in no record, and is trained.
    assert made.finetune(["often"], [0]) == 1
    assert trained == [1]


def with_methods(folder: Path, **further: dict[str, Any]) -> Study:
    whole = small_study(folder).model_dump()
    rate = whole["methods"]["swa"]["rate"]
    added = {name: {"title": name, "rate": rate, **own} for name, own in further.items()}
    return small_study(folder, methods={**whole["methods"], **added})


def test_a_replay_that_was_interrupted_goes_on_as_a_replay(copied: Path) -> None:
    study = with_methods(copied, one={"averaging": {"plan": "newest"}}, two={})
    store = finetune(copied, study)
    expected = digests(store, study)
    shutil.rmtree(store.folder / "runs" / "two")
    assert digests(finetune(copied, study), study) == expected


def test_a_trajectory_that_restarts_cannot_be_replayed(copied: Path) -> None:
    """Its epochs lie in the record, but the next average's starts would not be theirs."""
    methods = small_study(copied).methods
    assert is_of_epochs(methods["swa"].timeline(3, 4), 4)
    assert not is_of_epochs(methods["pswa"].timeline(3, 4), 4)
    within = methods["swa"].model_copy(update={"averaging": EqualMean(capture_every_epochs=0.5)})
    assert not is_of_epochs(within.timeline(3, 4), 4)


def test_a_replay_is_of_what_training_would_have_captured(copied: Path) -> None:
    """Half an epoch is a whole number of iterations, and no number of epochs."""
    late = {"averaging": {"capture_every_epochs": 1, "start_at_epoch": 1.5}}
    half = {"averaging": {"plan": "exponential", "half_life_epochs": 2, "start_at_epoch": 0.5}}
    study = with_methods(copied, late=late, half=half)
    replayed = finetune(copied, study)
    trained = finetune(copied, study, results="elsewhere")
    for name in ("late", "half"):
        found, expected = replayed.find(name, 0), trained.find(name, 0)
        assert found is not None
        assert expected is not None
        assert "snapshots" in found.provenance
        assert "snapshots" not in expected.provenance
        np.testing.assert_allclose(
            found.arrays()["weights/average"],
            expected.arrays()["weights/average"],
            rtol=1e-4,
            atol=1e-6,
        )


def test_a_method_is_trained_by_its_own_optimizer(copied: Path) -> None:
    """At one rate, in one data order: what differs is the optimizer."""
    rate = {"schedule": "constant", "learning_rate": 0.02}
    kinds = ("sgd", "adam", "lookahead", "schedule-free-sgd")
    study = with_methods(
        copied,
        **{
            f"by-{kind}": {"title": kind, "rate": rate, "optimizer": {"name": kind}}
            for kind in kinds
        },
    )
    store = finetune(copied, study, *(f"by-{kind}" for kind in kinds), results="optimizers")
    ends = [weights_of_run(store, f"by-{kind}") for kind in kinds]
    for one, other in itertools.combinations(ends, 2):
        assert np.abs(one - other).max() > 1e-4


def weights_of_run(store: RecordStore, name: str) -> NDArray[np.float32]:
    record = store.find(name, 0)
    assert record is not None
    found: NDArray[np.float32] = record.arrays()["weights/iterate"]
    return found


def test_a_changed_method_does_not_make_a_new_one_train(copied: Path) -> None:
    changed = with_methods(copied, new={"averaging": {"plan": "newest"}}).model_dump()
    changed["methods"]["sgd"]["rate"]["learning_rate"] = 0.007
    store = finetune(copied, small_study(copied, methods=changed["methods"], rate_sweep=None))
    record = store.find("new", 0)
    assert record is not None
    assert "snapshots" in record.provenance


def test_records_without_weights_are_no_source_and_no_landscape(copied: Path) -> None:
    none = small_study(copied).model_dump()
    none["finetune"]["keep_weights"] = "none"
    study = small_study(copied, finetune=none["finetune"])
    finetune(copied, study, results="bare")
    with_more = with_methods(copied, new={"averaging": {"plan": "newest"}})
    store = finetune(copied, with_more, results="bare")
    record = store.find("new", 0)
    assert record is not None
    assert "snapshots" not in record.provenance
    with pytest.raises(InputError, match="weights were not kept of"):
        experiment(copied, with_more, "bare").survey([0])


def test_the_stages_optimizer_spelled_out_is_no_other(copied: Path) -> None:
    study = with_methods(copied, spelled={"optimizer": {"name": "sgd", "momentum": 0.9}})
    assert finetune(copied, study, "spelled").find("spelled", 0) is not None
    assert "optimizer" not in str(study.all_methods["spelled"].model_dump(exclude_none=True))


class TestGroups:
    ALL: ClassVar = {"a": "1", "b": "2", "c": "3"}

    def test_without_records_all_train_together(self) -> None:
        assert missing_groups(self.ALL, {}) == [["a", "b", "c"]]

    def test_with_all_records_none_does(self) -> None:
        assert missing_groups(self.ALL, dict.fromkeys(self.ALL, self.ALL)) == []

    def test_a_missing_run_trains_in_its_old_group(self) -> None:
        assert missing_groups(self.ALL, {"b": self.ALL}) == [["a", "b", "c"]]
        old = {"b": "2", "a": "1"}
        assert missing_groups(self.ALL, {"b": old}) == [["b", "a"], ["c"]]

    def test_what_no_group_knows_is_a_group_of_its_own(self) -> None:
        old = {"a": "1", "b": "2"}
        assert missing_groups(self.ALL, {"a": old, "b": old}) == [["c"]]

    def test_a_group_whose_member_has_changed_cannot_train_again(self) -> None:
        old = {"a": "1", "b": "another"}
        assert missing_groups(self.ALL, {"a": old}) == [["b", "c"]]


# --- every kind of method, through every document -----------------------------------------------

EVERY_KIND: dict[str, dict[str, Any]] = {
    "linear": {"rate": {"schedule": "linear", "learning_rate": 0.01}},
    "cosine": {"rate": {"schedule": "cosine", "learning_rate": 0.01, "warmup_epochs": 1}},
    "exponential": {"averaging": {"plan": "exponential", "half_life_epochs": 1}},
    "last": {"averaging": {"plan": "last", "captures": 2}},
    "scored": {"averaging": {"plan": "score-weighted", "power": 100}},
    "soup": {"averaging": {"plan": "greedy-soup"}},
    "newest": {"averaging": {"plan": "newest"}},
    "free": {"optimizer": {"name": "schedule-free-sgd"}},
    "ahead": {"optimizer": {"name": "lookahead"}},
    "ahead-swa": {"optimizer": {"name": "lookahead"}, "averaging": {}},
}


def every_kind(folder: Path, **finetune: Any) -> Study:
    whole = small_study(folder).model_dump()
    rate = {"schedule": "constant", "learning_rate": 0.01}
    methods = {name: {"title": name, "rate": rate, **own} for name, own in EVERY_KIND.items()}
    return small_study(
        folder,
        methods={**whole["methods"], **methods},
        data={**whole["data"], "selection_images": 6},
        finetune={**whole["finetune"], **finetune},
    )


def test_every_kind_of_method_goes_through_every_document(copied: Path) -> None:
    study = every_kind(copied)
    made = experiment(copied, study)
    assert made.finetune(list(study.all_methods), [0]) == len(study.all_methods)
    groups = {tuple(record.trained_with) for record in found_records(made.store, study)}
    assert len(groups) == 3  # one an optimizer
    made.survey([0])
    publication = Publication(study, made.store, [0])
    for document in (publication.table, publication.figures, publication.claims):
        assert document().lacking == ""
    table = pd.read_csv(made.store.folder / "table.csv").set_index("method")
    assert table["accuracy"].notna().all()
    ensembles = pd.read_csv(made.store.folder / "ensemble.csv")
    assert "soup" not in set(ensembles["method"])
    assert {"swa", "last", "exponential", "ahead-swa"} <= set(ensembles["method"])


def test_curves_of_some_epochs_leave_claims_about_curves_open(copied: Path) -> None:
    study = every_kind(copied, score_every_epochs=2, keep_weights="none")
    made = experiment(copied, study)
    made.finetune(list(study.all_methods), [0])
    publication = Publication(study, made.store, [0])
    for document in (publication.table, publication.figures, publication.claims):
        document()
    verdicts = pd.read_csv(made.store.folder / "claims.csv").groupby("claim")["verdict"].first()
    assert verdicts[["C3", "C6"]].tolist() == ["not measured", "not measured"]
    assert "a point every 2 epochs" in (made.store.folder / "claims.md").read_text()
    record = made.store.find("swa", 0)
    assert record is not None
    assert record.result == "average"
    assert not [name for name in record.arrays() if name.startswith(("weights", "trajectory"))]
    with pytest.raises(InputError, match="keep_weights"):
        made.export("swa", 0)
    with pytest.raises(InputError, match="keep_weights"):
        made.survey([0])


def found_records(store: RecordStore, study: Study) -> list[Record]:
    records = [store.find(name, 0) for name in study.all_methods]
    return [record for record in records if record]


# --- which bytes a run was made from -----------------------------------------------------------


def test_other_images_under_the_same_path_are_other_runs(copied: Path) -> None:
    study = small_study(copied)
    before = digests(RecordStore(copied / "results", study), study)
    write_images(copied / "images", seed=1)
    store = RecordStore(copied / "results", study)
    assert digests(store, study) == {}
    after = digests(finetune(copied, study), study)
    assert after.keys() == before.keys()
    assert all(after[key] != before[key] for key in before)


def test_the_same_images_at_another_path_or_packed_are_the_same_runs(copied: Path) -> None:
    study = small_study(copied)
    before = digests(RecordStore(copied / "results", study), study)
    moved = copied / "elsewhere"
    (copied / "images").rename(moved)
    data = {**study.data.model_dump(), "folder": moved}
    assert digests(RecordStore(copied / "results", small_study(copied, data=data)), study) == before


def test_missing_images_stop_a_run_and_not_a_table(copied: Path) -> None:
    study = small_study(copied)
    before = digests(RecordStore(copied / "results", study), study)
    shutil.rmtree(copied / "images")
    with pytest.raises(InputError, match=r"data\.folder"):
        experiment(copied, study)
    assert digests(RecordStore.to_read(copied / "results", study), study) == before


def with_weights(folder: Path, weights: Path) -> Study:
    return small_study(folder, backbone={"weights": str(weights)})


def test_other_weights_under_the_same_path_are_other_runs(copied: Path) -> None:
    from swabench.study.inputs import BackboneSettings
    from swabench.training.backbone import load_backbone

    weights = copied / "w.pth"
    for seed in (1, 2):
        torch.save(load_backbone(BackboneSettings(seed=seed)).state_dict(), weights)
        study = with_weights(copied, weights)
        made = experiment(copied, study)
        assert made.store.find("adam", 0) is None
        assert made.pretrain([0]) == 1
    weights.write_bytes(b"no weights")
    with pytest.raises(InputError, match="is no file of weights"):
        experiment(copied, study).pretrain([0])
    weights.unlink()
    with pytest.raises(InputError, match=r"backbone\.weights"):
        experiment(copied, study).pretrain([0])
    assert RecordStore.to_read(copied / "results", study).find("adam", 0) is not None


def test_a_record_in_another_ones_place_is_refused(copied: Path) -> None:
    study = small_study(copied, seeds=[0, 1])
    store = finetune(copied, study)
    runs = store.folder / "runs" / "swa"
    first, second = sorted(runs.iterdir())
    shutil.rmtree(second)
    shutil.copytree(first, second)
    with pytest.raises(InputError, match=r"seed 0, and lies where 1 belongs"):
        collect(study, store, study.seeds)
    shutil.rmtree(first)
    sgd = next((store.folder / "runs" / "sgd").glob("seed-0-*"))
    shutil.copytree(sgd, first)
    with pytest.raises(InputError, match=r"method 'sgd', and lies where 'swa' belongs"):
        experiment(copied, study).export("swa", 0)


# --- features ---------------------------------------------------------------------------------


def test_records_carry_the_digests_of_their_features(copied: Path) -> None:
    study = small_study(copied)
    record = RecordStore(copied / "results", study).find("swa", 0)
    assert record is not None
    found = record.provenance["features"]["head"]
    entries = (copied / "cache" / "features").glob("*/features.json")
    written = {entry.read_text() for entry in entries}
    assert set(found) == {"training", "test"}
    assert all(any(digest in text for text in written) for digest in found.values())


def test_other_features_of_the_same_images_are_refused_within_a_seed(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another processor rounds otherwise: a seed's runs must not mix the two."""
    extract = feature_cache.extract
    monkeypatch.setattr(feature_cache, "extract", lambda *given: extract(*given) * (1 + 1e-6))
    study = small_study(copied)
    shutil.rmtree(copied / "cache")
    for name in set(study.all_methods):
        shutil.rmtree(copied / "results" / "small" / "runs" / name)
    with pytest.raises(InputError, match="features"):
        finetune(copied, study)
    # Another seed may be made on another machine.
    store = finetune(copied, small_study(copied, seeds=[1]))
    assert store.find("swa", 1) is not None


def test_the_number_of_threads_is_set_and_recorded(copied: Path) -> None:
    study = small_study(copied, seeds=[5])
    use_threads(1)
    made = experiment(copied, study)
    made.pretrain([5])
    record = made.store.find("adam", 5)
    assert record is not None
    assert record.environment["threads"] == 1
    assert torch.get_num_threads() == 1


# --- the landscape of these weights -------------------------------------------------------------


def test_a_clone_without_runs_has_no_landscape(copied: Path) -> None:
    """Runs are not committed: a landscape that lies there is of somebody else's weights."""
    study = small_study(copied)
    store = RecordStore(copied / "results", study)
    assert missing_parts(study, store, [0]) == []
    shutil.rmtree(store.folder / "runs")
    assert store.find_landscape("lines", 0) is None
    assert missing_parts(study, store, [0])


def test_a_landscape_of_other_weights_is_measured_anew(copied: Path) -> None:
    study = small_study(copied)
    store = RecordStore(copied / "results", study)
    before = store.find_landscape("lines", 0)
    move_weights(store, "swa")
    assert store.find_landscape("lines", 0) is None
    missing = missing_parts(study, store, [0])
    assert experiment(copied, study).survey([0]) == len(missing)
    after = store.find_landscape("lines", 0)
    assert before is not None
    assert after is not None
    assert before.weights["adam"] == after.weights["adam"]
    assert before.weights["swa"] != after.weights["swa"]
    lines = [found.tables["lines"].query("end == 'swa'") for found in (before, after)]
    assert not np.allclose(lines[0]["loss"], lines[1]["loss"], rtol=1e-3)


def move_weights(store: RecordStore, name: str) -> None:
    """Put a record of slightly other weights in the place of one."""
    record = store.find(name, 0)
    assert record is not None
    kept = record.arrays()
    outcome = Outcome(
        history=list(record.history),
        weights={"average": torch.from_numpy(kept["weights/average"] * np.float32(1.1))},
        trajectory=torch.from_numpy(kept["trajectory"]),
    )
    shutil.rmtree(record.folder)
    store.write(
        name,
        0,
        outcome,
        trained_with=list(record.trained_with),
        provenance=record.provenance,
        environment=record.environment,
        seconds=1,
    )
