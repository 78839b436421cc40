"""Records: whole or not there, verified, never mixed between studies."""

import dataclasses
import errno
import itertools
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from swabench.analysis.frame import Records, find_records
from swabench.records import Record, RecordStore, agree
from swabench.records.layout import ARRAYS, RECORD, Layout, may_travel, named_by
from swabench.records.leftovers import tidy
from swabench.records.sealing import sealed
from swabench.records.status import damages
from swabench.study.loading import load_study
from swabench.study.search_space import trial_study
from swabench.study.study import Study
from swabench.system.errors import InputError, SwabenchError
from swabench.training.measurement import Divergence, Measurement, Statistics
from tests.made_up import (
    ENVIRONMENT,
    PROVENANCE,
    Truth,
    last_of,
    outcome,
    record_of,
    small_study,
    write_run,
)


@pytest.fixture
def study() -> Study:
    return load_study("mnist")


@pytest.fixture
def store(tmp_path: Path, study: Study) -> RecordStore:
    return RecordStore(tmp_path, study)


@pytest.mark.parametrize("name", ["adam", "sgd", "swa", "pswa"])
def test_what_is_written_is_found_again_each_thing_in_its_place(
    store: RecordStore, study: Study, name: str
) -> None:
    written = outcome(study, name, 3)
    write_run(store, study, name, 3)
    record = record_of(store, name, 3)
    assert (record.method, record.seed) == (name, 3)
    assert record.provenance == PROVENANCE
    assert list(record.history) == written.history
    assert written.trajectory is not None
    expected = {
        "trajectory": written.trajectory,
        **{f"weights/{predictor}": found for predictor, found in written.weights.items()},
        **{f"labels/{split}": found for split, found in written.labels.items()},
        **{f"log_probabilities/{p}/{s}": v for (p, s), v in written.log_probabilities.items()},
    }
    arrays = record.arrays()
    assert arrays.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(arrays[key], values.numpy(), err_msg=key)


def test_the_final_measurement_is_the_last_epochs_of_its_predictor_and_split(
    store: RecordStore, study: Study
) -> None:
    write_run(store, study, "swa", 3)
    record = record_of(store, "swa", 3)
    for predictor in ("iterate", "average", "ensemble"):
        for split in ("validation", "test"):
            found = last_of(record, predictor, split)
            assert (found.epoch, found.predictor, found.split) == (15, predictor, split)


def test_each_treatment_of_batchnorm_is_found_by_its_name(store: RecordStore, study: Study) -> None:
    """Tables, figures and claims are of re-estimated statistics; running ones stand beside them."""
    write_run(store, study, "swa", 3)
    kinds: tuple[Statistics, ...] = ("re-estimated", "running")
    measured = {
        kind: [
            Measurement(epoch, "average", "test", 90 + epoch + place, 0.3, kind) for epoch in (1, 2)
        ]
        for place, kind in enumerate(kinds)
    }
    both = tuple(itertools.chain(*measured.values()))
    record = dataclasses.replace(record_of(store, "swa", 3), history=both)
    records = Records({"swa": {3: record}})
    assert records.final("swa", "accuracy") == {3: 92}
    assert records.course("swa", "accuracy", "average")[3].to_list() == [91, 92]
    assert set(records.frame["batchnorm"]) == set(kinds)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_of_a_run_that_diverged_there_stays_what_was_measured_before(
    store: RecordStore, study: Study, loss: float
) -> None:
    found = outcome(study, "swa", 0)
    found.diverged = Divergence(3, "average", "test", loss)
    before = tuple(m for m in found.history if m.epoch < 3)
    found.history = [replace(m, loss=loss if m.epoch >= 3 else m.loss) for m in found.history]
    store.write("swa", 0, found, provenance=PROVENANCE, environment=ENVIRONMENT, seconds=1)
    record = record_of(store, "swa", 0)
    assert record.history == before
    assert record.diverged
    assert repr(record.diverged) == repr(found.diverged)  # a NaN is not equal to itself
    assert str(record) == "swa at seed 0 (loss not finite after epoch 3)"
    assert record.result == "average"
    assert (record.holds, record.arrays()) == ([], {})
    text = (record.folder / "record.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is none of JSON's numbers"))
    assert store.missing(["swa"], [0]) == []
    assert [r.folder for r in store.diverged(["sgd", "swa"], [0, 1])] == [record.folder]


def test_a_run_that_did_not_diverge_is_recorded_as_ever(store: RecordStore, study: Study) -> None:
    """So records from before there was such a field are like any others."""
    write_run(store, study, "sgd", 0)
    record = record_of(store, "sgd", 0)
    assert record.diverged is None
    assert "diverged" not in json.loads((record.folder / "record.json").read_text())
    assert store.diverged(["sgd"], [0]) == []


@pytest.mark.parametrize(
    ("name", "result"), [("adam", "iterate"), ("sgd", "iterate"), ("swa", "average")]
)
def test_without_a_plan_the_iterate_is_the_result(
    store: RecordStore, study: Study, name: str, result: str
) -> None:
    write_run(store, study, name, 0)
    assert record_of(store, name, 0).result == result


def test_missing_runs_are_listed_by_seed(store: RecordStore, study: Study) -> None:
    write_run(store, study, "sgd", 1)
    assert store.missing(["sgd", "swa"], [1, 2]) == [("swa", 1), ("sgd", 2), ("swa", 2)]


def test_a_changed_study_does_not_see_old_records(tmp_path: Path, study: Study) -> None:
    store = RecordStore(tmp_path, study)
    write_run(store, study, "sgd", 0)
    written = record_of(store, "sgd", 0)
    finetune = study.finetune.model_copy(update={"epochs": 16})
    other = study.model_copy(update={"finetune": finetune})
    changed = RecordStore(tmp_path, other)
    assert changed.find("sgd", 0) is None
    write_run(changed, other, "sgd", 0, Truth(accuracy=90))
    assert record_of(store, "sgd", 0) == written


@pytest.mark.parametrize("damage", ["altered", "truncated", "gone"])
def test_tensors_that_are_not_as_written_are_refused(
    store: RecordStore, study: Study, damage: str
) -> None:
    write_run(store, study, "sgd", 0)
    record = record_of(store, "sgd", 0)
    path = record.folder / "arrays.safetensors"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + (b"\xff" if damage == "altered" else b""))
    with pytest.raises(InputError, match=r"arrays\.safetensors.*delete"):
        record.arrays()


@pytest.mark.parametrize("text", ["{", "[]", "{}", "1", '{"history": []}'])
def test_an_unreadable_record_is_named_not_skipped(
    store: RecordStore, study: Study, text: str
) -> None:
    write_run(store, study, "sgd", 0)
    (record_of(store, "sgd", 0).folder / "record.json").write_text(text)
    with pytest.raises(InputError, match=r"record\.json.*delete"):
        store.find("sgd", 0)


def test_a_measurement_that_was_altered_is_noticed(store: RecordStore, study: Study) -> None:
    write_run(store, study, "sgd", 0)
    record = record_of(store, "sgd", 0)
    path, accuracy = record.folder / "record.json", str(last_of(record, "iterate", "test").accuracy)
    assert accuracy in path.read_text()
    path.write_text(path.read_text().replace(accuracy, "99.0"))
    with pytest.raises(InputError, match=r"altered since it was written"):
        store.find("sgd", 0)


def test_an_interrupted_write_leaves_no_record(
    store: RecordStore, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_run(store, study, "sgd", 0)
    assert store.find("sgd", 0) is None
    assert list((store.folder / "runs" / "sgd").iterdir()) == []


def test_of_two_writers_the_first_wins(store: RecordStore, study: Study) -> None:
    write_run(store, study, "sgd", 0)
    first = record_of(store, "sgd", 0)
    write_run(store, study, "sgd", 0, Truth(accuracy=50))
    assert record_of(store, "sgd", 0) == first


def test_a_results_folder_that_cannot_be_written_is_named(tmp_path: Path, study: Study) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"a file lies where a folder belongs.*--results") as error:
        RecordStore(tmp_path / "file", study).prepare()
    assert "make room" not in str(error.value)


def test_a_document_that_cannot_be_written_is_named(store: RecordStore, study: Study) -> None:
    (store.folder / "table.csv").mkdir(parents=True)
    with pytest.raises(InputError, match=r"table\.csv: cannot be written"):
        store.write_text("table.csv", "text")
    (store.folder / "runs").write_text("a file where a folder should be")
    with pytest.raises(InputError, match="cannot be written"):
        write_run(store, study, "sgd", 0)


def test_a_record_is_json_that_others_can_read(store: RecordStore, study: Study) -> None:
    write_run(store, study, "sgd", 0)
    content = json.loads((record_of(store, "sgd", 0).folder / "record.json").read_text())
    assert content["provenance"]["backbone"] == PROVENANCE["backbone"]
    first = outcome(study, "sgd", 0).history[0]
    assert content["history"][0] == {
        "epoch": 1,
        "predictor": "iterate",
        "split": "validation",
        "accuracy": first.accuracy,
        "loss": first.loss,
        "batchnorm": None,
    }


def test_everything_said_of_a_run_is_found_again(store: RecordStore, study: Study) -> None:
    store.write(
        "swa", 3, outcome(study, "swa", 3), trained_with=["sgd", "swa"],
        provenance=PROVENANCE, environment=ENVIRONMENT, seconds=12.3456,
    )  # fmt: skip
    record = record_of(store, "swa", 3)
    assert record.provenance == PROVENANCE
    assert record.environment == ENVIRONMENT
    assert record.seconds == 12.346
    assert record.identity == store.identity("swa", 3)
    assert list(record.trained_with.items()) == [
        (name, store.identity(name, 3)) for name in ("sgd", "swa")
    ]
    assert list(record.holds) == sorted(record.arrays())
    assert record.folder.parent == store.folder / "runs" / "swa"
    write_run(store, study, "sgd", 3)
    alone = record_of(store, "sgd", 3)
    assert alone.trained_with == {"sgd": alone.identity}
    # A study that names no file by a path leaves no digests of such.
    assert not (store.folder / "runs" / "files.json").exists()


@pytest.mark.parametrize("change", [{"identity": "0" * 16}, {"extra": 1}, {"holds": None}])
def test_a_whole_record_of_something_else_is_named(
    store: RecordStore, study: Study, change: dict[str, object]
) -> None:
    """Of another identity, or of another version: with a key that is unknown, or without one."""
    write_run(store, study, "sgd", 0)
    path = record_of(store, "sgd", 0).folder / "record.json"
    content = {**json.loads(path.read_text()), **change}
    content = {k: v for k, v in content.items() if v is not None and k != "sha256"}
    if change == {"holds": None}:
        del content["history"]
    path.write_bytes(sealed(content))
    with pytest.raises(InputError, match=rf"record\.json: .*; delete {path.parent} and run again"):
        store.find("sgd", 0)


def test_a_record_without_its_digest_is_refused(store: RecordStore, study: Study) -> None:
    write_run(store, study, "sgd", 0)
    path = record_of(store, "sgd", 0).folder / "record.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="altered since it was written"):
        store.find("sgd", 0)


def test_an_average_without_an_ensemble_and_many_classes_are_kept(
    store: RecordStore, study: Study
) -> None:
    left = outcome(study, "swa", 0)
    left.history = [m for m in left.history if m.predictor != "ensemble"]
    left.labels["test"][0] = 999
    store.write("swa", 0, left, provenance=PROVENANCE, environment=ENVIRONMENT, seconds=1)
    record = record_of(store, "swa", 0)
    assert record.result == "average"
    assert record.arrays()["labels/test"][0] == 999


def test_a_folder_is_tried_before_any_work(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(**_: object) -> None:
        raise PermissionError(13, "Permission denied", "a1b2")  # what it tried means nothing

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    with pytest.raises(
        SwabenchError, match=r"mnist: cannot be written \(Permission.*--results"
    ) as error:
        store.prepare()
    assert error.value.exit_code == 1  # it may be another's tomorrow; nothing asked for is wrong


def test_a_disk_that_is_full_is_a_failure_and_says_to_make_room(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SwabenchError, match=r"table\.csv: .*; make room, or choose") as error:
        store.write_text("table.csv", "text")
    assert error.value.exit_code == 1


def test_what_killed_writers_left_is_removed_wherever_they_write(
    store: RecordStore, study: Study
) -> None:
    write_run(store, study, "sgd", 0)
    places = (
        "", "runs", "runs/sgd", "landscape", "landscape/lines", "figures", "unfinished",
        "unfinished/0123456789abcdef",
    )  # fmt: skip
    left = [store.folder / place / ".writing-elsewhere-1-00000000" for place in places]
    for folder in left:
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    tidy(store)
    assert [folder for folder in left if folder.exists()] == []
    assert store.find("sgd", 0)


def test_locks_that_killed_processes_left_are_removed_and_others_stay(
    store: RecordStore, study: Study
) -> None:
    places = store.unfinished(["sgd"], 0).lock(), store.landscape_lock("rays", 0)
    for lock in places:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        Path(lock.lock_file).touch()
    with places[0]:
        tidy(store)
        assert [Path(lock.lock_file).exists() for lock in places] == [True, False]
    tidy(store)
    assert not Path(places[0].lock_file).exists()


def test_small_files_are_taken_away_by_their_pattern(store: RecordStore) -> None:
    for name in ("landscape-lines.csv", "landscape-plane.csv", "table.csv"):
        assert store.write_text(name, "numbers") == name
    store.remove_texts("landscape-*.csv")
    assert [path.name for path in store.folder.iterdir()] == ["table.csv"]
    assert store.write_figure("a.svg", b"a picture") == "figures/a.svg"
    assert (store.folder / "figures" / "a.svg").read_bytes() == b"a picture"
    store.remove_figure("a.svg")
    store.remove_figure("a.svg")
    assert list((store.folder / "figures").iterdir()) == []


def test_without_runs_and_images_it_is_the_images_that_are_named(
    tmp_path: Path, study: Study
) -> None:
    data = study.data.model_copy(update={"dataset": "folder", "folder": tmp_path / "absent"})
    with pytest.raises(InputError, match="absent: not a folder"):
        RecordStore.to_read(tmp_path, study.model_copy(update={"data": data}))


# --- the landscape ---------------------------------------------------------------------------


@pytest.fixture
def with_landscape(tmp_path: Path) -> RecordStore:
    """Runs of two seeds, and a part of the landscape of the first."""
    study = small_study()
    store = RecordStore(tmp_path, study)
    for seed in (0, 1):
        for name in study.row_names:
            write_run(store, study, name, seed)
    store.write_landscape(
        "lines", 0, {"lines": pd.DataFrame({"end": ["swa", "sgd"], "loss": [0.25, 0.5]})},
        provenance=PROVENANCE, environment=ENVIRONMENT, seconds=12.3456,
    )  # fmt: skip
    return store


def test_everything_said_of_a_landscape_is_found_again(with_landscape: RecordStore) -> None:
    record = with_landscape.find_landscape("lines", 0)
    assert record is not None
    assert (record.part, record.seed, record.seconds) == ("lines", 0, 12.346)
    assert record.provenance == PROVENANCE
    assert record.environment == ENVIRONMENT
    assert list(record.tables) == ["lines"]
    assert record.tables["lines"].to_dict("list") == {"end": ["swa", "sgd"], "loss": [0.25, 0.5]}
    rows = small_study().landscape_rows("lines")
    assert list(record.weights.items()) == [
        (name, record_of(with_landscape, name, 0).arrays_sha256) for name in rows
    ]
    assert with_landscape.find_landscape("lines", 1) is None
    assert with_landscape.find_landscape("plane", 0) is None


def test_a_landscape_of_runs_that_went_away_is_not_written(with_landscape: RecordStore) -> None:
    shutil.rmtree(with_landscape.folder / "runs" / "swa")
    assert with_landscape.find_landscape("lines", 0) is None
    with pytest.raises(InputError, match="runs of seed 1 went away while looked at"):
        with_landscape.write_landscape(
            "lines", 1, {}, provenance=PROVENANCE, environment=ENVIRONMENT, seconds=1
        )
    assert len(list(with_landscape.folder.glob("landscape/*/*"))) == 1


# --- what is damaged -------------------------------------------------------------------------


def test_records_and_parts_of_a_landscape_that_are_whole_are_no_damage(
    with_landscape: RecordStore,
) -> None:
    assert list(damages(with_landscape.folder)) == []


@pytest.mark.parametrize(
    ("kind", "place", "reason"),
    [
        ("runs/swa", "seed-7-{identity}", "it is of seed 0, and lies where 7 belongs"),
        ("runs/swa", "seed-0-0123456789abcdef", "it is of identity"),
        ("landscape/lines", "seed-7-{identity}.json", "it is of seed 0, and lies where 7"),
        ("runs/swa-kept", "seed-0-{identity}", ""),
        ("runs/swa", "seed-0-{identity}-kept", ""),
        ("landscape/kept", "seed-0-{identity}.json", ""),
    ],
)
def test_what_lies_where_another_belongs_is_damage_and_a_copy_put_aside_is_none(
    with_landscape: RecordStore, kind: str, place: str, reason: str
) -> None:
    own = "landscape/lines" if kind.startswith("landscape") else "runs/swa"
    (whole,) = (with_landscape.folder / own).glob("seed-0-*[!k]")
    identity = whole.stem.rsplit("-", 1)[-1]
    other = with_landscape.folder / kind / place.format(identity=identity)
    other.parent.mkdir(exist_ok=True)
    if whole.is_dir():
        shutil.copytree(whole, other)
    else:
        shutil.copy(whole, other)
    found = list(damages(with_landscape.folder))
    assert [damage.path for damage in found] == [other] * bool(reason)
    assert all(reason in damage.reason for damage in found)


def test_damage_among_the_trials_of_a_tuning_is_found(tmp_path: Path) -> None:
    study = load_study("mnist-tuned")
    store = RecordStore(tmp_path, study)
    trials, trial = store.of_trials(), trial_study(study)
    assert trials.folder == store.layout.of_trials.folder
    name = trial.row_names[0]
    write_run(trials, trial, name, 1000)
    assert list(damages(store.folder)) == []
    (path,) = trials.folder.glob("runs/*/*/arrays.safetensors")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert [damage.path for damage in damages(store.folder)] == [path.parent]


def test_a_place_names_what_lies_there_and_is_found_by_its_kind(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for seed in (1, 12):
        layout.run("swa-rate-0.01", seed, "ab" * 8).mkdir(parents=True)
        part = layout.landscape("lines", seed, "cd" * 8)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    layout.named_files.touch()
    run, part = layout.run("swa-rate-0.01", 1, "ab" * 8), layout.landscape("lines", 1, "cd" * 8)
    assert named_by(run) == {"seed": 1, "identity": "ab" * 8}
    assert named_by(part) == {"seed": 1, "identity": "cd" * 8}
    assert named_by(run.with_name(f"{run.name}-kept")) == {}
    assert (len(layout.every_run()), len(layout.every_landscape())) == (2, 2)
    assert layout.every_landscape(1) == [part]
    assert layout.every_named_files() == [layout.named_files]
    assert layout.seeds_of("swa-rate-0.01") == {"1", "12"}
    for path in (run / RECORD, run / ARRAYS, part, layout.named_files):
        assert may_travel(path.relative_to(tmp_path).as_posix())
    assert not may_travel(layout.choices.relative_to(tmp_path).as_posix())


# --- what was made from the same -------------------------------------------------------------


def test_records_agree_if_what_both_were_made_from_is_the_same() -> None:
    one = {"data": {"a": "1"}, "backbone": "b", "features": {"head": {"test": "c"}}}
    assert agree(one, dict(one))
    assert agree(one, {**one, "features": {"layer4": {"test": "d"}}})
    assert agree(one, {"data": {"a": "1"}, "backbone": "b"})
    for part, other in {
        "data": {"a": "2"},
        "backbone": "c",
        "features": {"head": {"test": "d"}, "layer4": {"test": "c"}},
    }.items():
        changed = {**one, part: other}
        assert not agree(one, changed)
        assert not agree(one, changed, [part])
        assert agree(one, changed, [name for name in one if name != part])


def test_ten_thousand_seeds_are_looked_for_by_one_look_at_a_folder(
    store: RecordStore, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = list(range(10_000))
    write_run(store, study, "sgd", 3)
    asked: list[int] = []
    find = RecordStore.find

    def counted(self: RecordStore, method: str, seed: int) -> Record | None:
        asked.append(seed)
        return find(self, method, seed)

    monkeypatch.setattr(RecordStore, "find", counted)
    missing = store.missing(["sgd", "swa"], seeds)
    assert len(missing) == 20_000 - 1
    assert ("sgd", 3) not in missing
    assert find_records(study, store, seeds, ["sgd", "swa"])["sgd"].keys() == {3}
    assert asked == [3, 3]
    assert store.begun("swa", seeds) == []
