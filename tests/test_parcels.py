"""Records as bytes: what goes in comes out, and nothing is written outside."""

from pathlib import Path

import pytest

from swabench.records import RecordStore
from swabench.records.parcels import pack, unpack
from swabench.system.errors import InputError
from tests.made_up import record_of, small_study, study_with, survey, write_study


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_records_of_some_seeds_travel_whole(tmp_path: Path) -> None:
    study = small_study()
    store = write_study(tmp_path / "here", study)
    survey(study, store, [0, 1], parts=["lines"])
    parcel = pack(study, tmp_path / "here", [1])
    assert parcel
    unpack(parcel, tmp_path / "there" / study.name)
    there = files(tmp_path / "there" / study.name)
    assert there == {name: c for name, c in files(store.folder).items() if "/seed-1-" in name}
    assert {name.split("/")[0] for name in there} == {"runs", "landscape"}


def test_a_seed_is_not_taken_for_one_that_begins_like_it(tmp_path: Path) -> None:
    study = study_with(12)
    write_study(tmp_path, study)
    names = pack(study, tmp_path, [1])
    assert names
    assert all("/seed-1-" in name for name in names)


def test_what_was_given_does_not_come_back(tmp_path: Path) -> None:
    study = study_with(2)
    write_study(tmp_path, study)
    given = pack(study, tmp_path, [1])
    assert pack(study, tmp_path, [1], without=given.keys()) == {}
    (swa,) = (name for name in given if name.startswith("runs/swa/") and name.endswith("json"))
    assert set(pack(study, tmp_path, [1], without=given.keys() - {swa})) == {swa}


def test_records_of_other_settings_and_arrays_that_are_not_wanted_stay_behind(
    tmp_path: Path,
) -> None:
    study = study_with(1)
    write_study(tmp_path, study)
    stage = study.finetune.model_copy(update={"batch_size": 64})
    other = study.model_copy(update={"finetune": stage})
    write_study(tmp_path, other)
    parcel = pack(other, tmp_path, [0], arrays_of=["adam"])
    store = RecordStore(tmp_path, other)
    assert {name.split("/")[2] for name in parcel} == {
        f"seed-0-{store.identity(name, 0)}" for name in other.run_names
    }
    with_arrays = {name.split("/")[1] for name in parcel if name.endswith(".safetensors")}
    assert with_arrays == {"adam"}
    assert {name.split("/")[1] for name in parcel} == set(other.run_names)


def test_records_that_are_there_stay(tmp_path: Path) -> None:
    study = study_with(1)
    store = write_study(tmp_path, study)
    parcel = dict.fromkeys(pack(study, tmp_path, [0]), b"other")
    before = files(store.folder)
    unpack(parcel, store.folder)
    assert files(store.folder) == before
    assert record_of(store, "swa", 0).arrays()


@pytest.mark.parametrize(
    "name",
    [
        "/tmp/evil",
        "../evil",
        "runs/../../evil/seed-0-a/record.json",
        "runs/swa/seed-0-a/../../../../evil",
        "evil",
        "choices.yaml",
        "runs/evil",
        "runs/swa/seed-0-a/deep/record.json",
        "",
    ],
)
def test_a_path_that_is_no_records_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "study"
    with pytest.raises(InputError, match="no record's path; nothing is written"):
        unpack({"landscape/lines/seed-0-a.json": b"fine", name: b"evil"}, folder)
    assert not list(tmp_path.rglob("*"))
