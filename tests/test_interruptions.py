"""Interruptions as a user meets them: real processes, a real network, real signals."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from swabench.records.unfinished import Unfinished
from swabench.system.files import host
from tests.test_cli import Place, contents, ended, wait_until
from tests.test_cli import images as images

NETWORK = """
extends: smoke
title: A tiny study of ResNet-50's last stage
data: {{dataset: folder, folder: {folder}, validation_images: 20, selection_images: 10, training_images: null, test_images: null}}
backbone: {{standardize_features: false}}
pretrain: {{trainable: layer4, batch_size: 20}}
finetune: {{trainable: layer4, batchnorm: train, batch_size: 20, epochs: 3, score_every_epochs: 3}}
"""  # noqa: E501
RUN = ("finetune", "-m", "pswa", "--config", "tiny.yaml", "--seeds", "1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Place:
    """PSWA on ResNet-50's last stage, without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    place = Place(folder, images, tmp_path_factory.mktemp("cache"))
    place.study.write_text(NETWORK.format(folder=images))
    done = place.run(*RUN)
    assert done.code == 0, done.errors
    return place


@pytest.fixture
def begun(whole: Place, tmp_path: Path) -> Place:
    """The same where only pretraining is done."""
    return pretrained(whole, tmp_path)


def pretrained(whole: Place, folder: Path) -> Place:
    """A place with the study and the pretraining of another, and nothing else."""
    place = Place(folder, whole.images, whole.cache)
    shutil.copy(whole.study, place.study)
    shutil.copytree(whole.documents / "runs" / "adam", place.documents / "runs" / "adam")
    return place


def groups(place: Place) -> list[Unfinished]:
    found = sorted((place.documents / "unfinished").glob("*/"))
    return [Unfinished(path) for path in found if path.is_dir()]


def wait_for_states(place: Place, process: subprocess.Popen[str]) -> None:
    """Until a group of runs has kept the end of an epoch."""
    wait_until(lambda: any(place.documents.glob("unfinished/*/state-*.json")), process)


def check_same(place: Place, whole: Place) -> None:
    """Weights, predictions and measurements to the last bit, and nothing left behind."""
    assert contents(place.documents, "*.safetensors") == contents(whole.documents, "*.safetensors")
    for path in sorted(whole.documents.rglob("record.json")):
        ours, theirs = (
            json.loads((of.documents / path.relative_to(whole.documents)).read_text())
            for of in (place, whole)
        )
        assert ours["history"] == theirs["history"]
        assert ours["arrays_sha256"] == theirs["arrays_sha256"]
    assert not groups(place)
    assert not list(place.results.rglob(".writing-*"))


@pytest.mark.slow
def test_a_signal_pauses_a_network_within_an_epoch(begun: Place, whole: Place) -> None:
    process = begun.process(*RUN, "--save-every", "0s")
    wait_for_states(begun, process)
    process.send_signal(signal.SIGTERM)
    done = ended(process)
    assert done.code == 143, done.errors
    assert "pausing after this step" in done.errors
    assert "asked to end (SIGTERM)" in done.errors
    assert "the same command resumes" in done.errors
    assert "Traceback" not in done.errors
    status = json.loads(begun.run("status", "-c", "tiny.yaml", "-s", "1", "--json").out)
    (group,) = status["interrupted"]
    assert group["runs"] == ["pswa"]
    assert group["kept"] == group["epoch"] >= 1
    assert status["runs"]["pswa"] == {"interrupted": 1}
    assert status["runs"]["adam"] == {"done": 1}
    done = begun.run(*RUN)
    assert done.code == 0, done.errors
    assert "goes on after" in done.errors
    check_same(begun, whole)


@pytest.mark.slow
def test_a_killed_network_goes_on_from_its_last_state(begun: Place, whole: Place) -> None:
    process = begun.process(*RUN, "--save-every", "0s")
    wait_for_states(begun, process)
    process.kill()
    ended(process)
    done = begun.run(*RUN)
    assert done.code == 0, done.errors
    assert "pswa at seed 0 goes on after" in done.errors
    check_same(begun, whole)


@pytest.mark.slow
def test_no_more_time_is_taken_than_was_given(begun: Place) -> None:
    # However fast a machine is, this takes it longer.
    longer = begun.study.read_text().replace("epochs: 3", "epochs: 900")
    begun.study.write_text(longer)
    done = begun.run(*RUN, "--stop-after", "3s")
    assert done.code == 130, done.errors
    assert "the time given by --stop-after is up" in done.errors
    assert not list(begun.documents.glob("runs/pswa/*"))


@pytest.mark.parametrize("option", ["--stop-after", "--save-every"])
@pytest.mark.parametrize("time", ["", "5", "m", "1.5h", "-3m", "3m2h", "soon", "99999999999s"])
def test_a_time_that_is_none_is_refused(
    tmp_path: Path, images: Path, option: str, time: str
) -> None:
    done = Place(tmp_path, images, tmp_path / "cache").run(*RUN, option, time)
    assert done.code == 2
    assert f"{option}: {time!r}; give a time such as 90s, 50m or 3h30m" in done.errors


# --- repair --------------------------------------------------------------------------------


@pytest.mark.slow
def test_repair_removes_what_is_damaged_and_nothing_else(whole: Place, tmp_path: Path) -> None:
    place = Place(tmp_path, whole.images, tmp_path / "cache")
    shutil.copy(whole.study, place.study)
    shutil.copytree(whole.results, place.results)
    shutil.copytree(whole.cache, place.cache)
    before = contents(tmp_path)
    done = place.run("repair", "-c", "tiny.yaml")
    assert (done.code, done.out) == (0, "repair: 0 damaged, 0 left behind\n")
    (record,) = place.documents.glob("runs/pswa/*")
    entry = sorted(place.cache.glob("features/*/"))[0]
    gone = 2**22 + 1  # more than any process has
    stale = place.documents / "runs" / "pswa" / f".writing-{host()}-{gone}-01234567"
    stale.mkdir()
    for path in (record / "arrays.safetensors", entry / "features.safetensors"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    status = place.run("status", "-c", "tiny.yaml", "-s", "1").out
    assert "pswa" in status
    here = (record.relative_to(tmp_path), entry, stale.relative_to(tmp_path))
    for options, verb in ((["--dry-run"], "would remove"), ([], "removing")):
        done = place.run("repair", "-c", "tiny.yaml", *options)
        assert done.code == 0
        lines = done.out.splitlines()
        assert lines[-1] == "repair: 2 damaged, 1 left behind"
        for line, named in zip(lines, here, strict=False):
            assert line.startswith(f"{verb} {named}: ")
        assert record.exists() == entry.exists() == stale.exists() == bool(options)
    left = contents(tmp_path)
    assert left.items() <= before.items()
    removed = {Path(name).parent for name in before.keys() - left.keys()}
    assert removed == {path.relative_to(tmp_path) for path in (record, entry)}


@pytest.mark.slow
def test_a_damaged_record_is_told_by_status(whole: Place, tmp_path: Path) -> None:
    place = Place(tmp_path, whole.images, whole.cache)
    shutil.copy(whole.study, place.study)
    shutil.copytree(whole.results, place.results)
    (record,) = place.documents.glob("runs/pswa/*")
    (record / "record.json").write_text("{")
    done = place.run("status", "-c", "tiny.yaml", "-s", "1")
    assert done.code == 0
    assert "damaged: `swabench repair` names what is, and removes it" in done.out
    found = json.loads(place.run("status", "-c", "tiny.yaml", "-s", "1", "--json").out)
    assert found["damaged"] == [{"run": "pswa", "seed": 0}]
    assert place.run("repair", "-c", "tiny.yaml").code == 0
    assert not record.exists()
    found = json.loads(place.run("status", "-c", "tiny.yaml", "-s", "1", "--json").out)
    assert found["runs"]["pswa"] == {"missing": 1}
