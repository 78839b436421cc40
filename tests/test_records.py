"""Records: whole or not there, verified, never mixed between studies."""

import json
import os
from pathlib import Path

import pytest
import torch

from swabench.records import RecordStore
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.system.errors import InputError
from swabench.training.loop import Outcome
from swabench.training.measurement import Measurement


def outcome(accuracy: float = 93.0, averages: bool = True) -> Outcome:
    found = Outcome(trajectory=torch.arange(6.0).view(2, 3))
    for predictor in ("iterate", "average", "ensemble") if averages else ("iterate",):
        for split in ("validation", "test"):
            found.history.append(Measurement(1, predictor, split, accuracy, 0.25))
            found.log_probabilities[predictor, split] = torch.full((4, 2), 0.5).log()
        if predictor != "ensemble":
            found.weights[predictor] = torch.tensor([1.0, 2.0, 3.0])
    return found


def write(store: RecordStore, method: str, seed: int, found: Outcome | None = None) -> None:
    store.write(
        method,
        seed,
        found or outcome(),
        provenance={"data": {"images": "ab"}, "backbone": "cd"},
        environment={"device": "cpu"},
        seconds=1.5,
    )


@pytest.fixture
def study() -> Study:
    return load_study("mnist")


@pytest.fixture
def store(tmp_path: Path, study: Study) -> RecordStore:
    return RecordStore(tmp_path, study)


def test_what_is_written_is_found_again(store: RecordStore) -> None:
    written = outcome()
    write(store, "swa", 3, written)
    record = store.find("swa", 3)
    assert record is not None
    assert (record.method, record.seed, record.result) == ("swa", 3, "average")
    assert list(record.history) == written.history
    assert record.final("ensemble", "test").accuracy == 93.0
    arrays = record.arrays()
    assert arrays["weights/average"].tolist() == written.weights["average"].tolist()
    assert arrays["trajectory"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert arrays["log_probabilities/iterate/test"].shape == (4, 2)


def test_without_a_plan_the_iterate_is_the_result(store: RecordStore) -> None:
    write(store, "sgd", 0, outcome(averages=False))
    record = store.find("sgd", 0)
    assert record is not None
    assert record.result == "iterate"


def test_missing_runs_are_listed_by_seed(store: RecordStore) -> None:
    write(store, "sgd", 1)
    assert store.missing(["sgd", "swa"], [1, 2]) == [("swa", 1), ("sgd", 2), ("swa", 2)]


def test_a_changed_study_does_not_see_old_records(tmp_path: Path, study: Study) -> None:
    write(RecordStore(tmp_path, study), "sgd", 0)
    finetune = study.finetune.model_copy(update={"epochs": 16})
    changed = RecordStore(tmp_path, study.model_copy(update={"finetune": finetune}))
    assert changed.find("sgd", 0) is None
    write(changed, "sgd", 0, outcome(90.0))
    kept = RecordStore(tmp_path, study).find("sgd", 0)
    assert kept is not None
    assert kept.final("iterate", "test").accuracy == 93.0


@pytest.mark.parametrize("damage", ["altered", "truncated", "gone"])
def test_tensors_that_are_not_as_written_are_refused(store: RecordStore, damage: str) -> None:
    write(store, "sgd", 0)
    record = store.find("sgd", 0)
    assert record is not None
    path = record.folder / "arrays.safetensors"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + (b"\xff" if damage == "altered" else b""))
    with pytest.raises(InputError, match=r"arrays\.safetensors.*delete"):
        record.arrays()


@pytest.mark.parametrize("text", ["{", "[]", "{}", "1", '{"history": []}'])
def test_an_unreadable_record_is_named_not_skipped(store: RecordStore, text: str) -> None:
    write(store, "sgd", 0)
    record = store.find("sgd", 0)
    assert record is not None
    (record.folder / "record.json").write_text(text)
    with pytest.raises(InputError, match=r"record\.json.*delete"):
        store.find("sgd", 0)


def test_a_measurement_that_was_altered_is_noticed(store: RecordStore) -> None:
    write(store, "sgd", 0, outcome(93.0))
    record = store.find("sgd", 0)
    assert record is not None
    path = record.folder / "record.json"
    path.write_text(path.read_text().replace("93.0", "99.0"))
    with pytest.raises(InputError, match=r"altered since it was written"):
        store.find("sgd", 0)


def test_an_interrupted_write_leaves_no_record(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(store, "sgd", 0)
    assert store.find("sgd", 0) is None
    assert list((store.folder / "runs" / "sgd").iterdir()) == []


def test_of_two_writers_the_first_wins(store: RecordStore) -> None:
    write(store, "sgd", 0, outcome(93.0))
    write(store, "sgd", 0, outcome(50.0))
    record = store.find("sgd", 0)
    assert record is not None
    assert record.final("iterate", "test").accuracy == 93.0


def test_a_results_folder_that_cannot_be_written_is_named(tmp_path: Path, study: Study) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="--results"):
        RecordStore(tmp_path / "file", study).prepare()


def test_a_document_that_cannot_be_written_is_named(store: RecordStore) -> None:
    (store.folder / "table.csv").mkdir(parents=True)
    with pytest.raises(InputError, match=r"table\.csv: cannot be written"):
        store.write_text("table.csv", "text")
    (store.folder / "runs").write_text("a file where a folder should be")
    with pytest.raises(InputError, match="cannot be written"):
        write(store, "sgd", 0)


def test_a_record_is_json_that_others_can_read(store: RecordStore) -> None:
    write(store, "sgd", 0)
    record = store.find("sgd", 0)
    assert record is not None
    content = json.loads((record.folder / "record.json").read_text())
    assert content["provenance"]["backbone"] == "cd"
    assert content["history"][0] == {
        "epoch": 1,
        "predictor": "iterate",
        "split": "validation",
        "accuracy": 93.0,
        "loss": 0.25,
    }
