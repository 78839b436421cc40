"""A study on several workers, in shares, and on a cluster: the same records, whoever dies.

Real processes, the real ResNet-50, a tiny data set.
"""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from swabench.runs import experiment as experiments
from swabench.runs.checkpoints import GroupCheckpoints
from swabench.runs.lanes import Lanes
from swabench.system import progress
from swabench.system.errors import InputError
from swabench.system.files import is_running
from swabench.system.pausing import Interrupted, Pause
from swabench.training.state import State
from tests.test_cli import TINY, Place, ended, wait_until
from tests.test_cli import images as images
from tests.test_interruptions import check_same, groups, pretrained, wait_for_states

# A final layer without cached features: its trajectories are units, as a network's, and its
# states are small. So many epochs that both are under way at once, though one worker starts later.
NETWORK = """
extends: smoke
title: A tiny study whose trajectories train apart
data: {{dataset: folder, folder: {folder}, validation_images: 20, selection_images: 10, training_images: null, test_images: null}}
backbone: {{cache_features: false}}
finetune: {{batch_size: 20, epochs: 18, score_every_epochs: 18}}
"""  # noqa: E501
HEADS = ("finetune", "-m", "all", *TINY, "--seeds", "4", "--threads", "1")
PATHS = ("finetune", "-m", "swa-cyclical", "-m", "pswa", *TINY, "--seeds", "1")
SPREAD = ("--jobs", "2", "--threads", "1", "--save-every", "0s")


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Place:
    """Four seeds of heads, trained by this process."""
    place = Place(tmp_path_factory.mktemp("heads"), images, tmp_path_factory.mktemp("cache"))
    done = place.run(*HEADS)
    assert done.code == 0, done.errors
    return place


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Place:
    """Two trajectories that train apart, trained by this process."""
    place = Place(tmp_path_factory.mktemp("network"), images, tmp_path_factory.mktemp("cache"))
    place.study.write_text(NETWORK.format(folder=images))
    done = place.run(*PATHS, "--threads", "1")
    assert done.code == 0, done.errors
    return place


@pytest.fixture
def fresh(tmp_path: Path, heads: Place) -> Place:
    return Place(tmp_path, heads.images, heads.cache)


@pytest.fixture
def begun(network: Place, tmp_path: Path) -> Place:
    """The same where only pretraining is done."""
    return pretrained(network, tmp_path)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Processes that another one has started, of those that are no helpers of multiprocessing."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    numbers = [int(number) for number in children.read_text().split()]
    return [n for n in numbers if b"spawn_main" in Path(f"/proc/{n}/cmdline").read_bytes()]


# --- processes ------------------------------------------------------------------------------


@pytest.mark.slow
def test_several_processes_give_the_same_records(fresh: Place, heads: Place) -> None:
    done = fresh.run(*HEADS, "--jobs", "2")
    assert done.code == 0, done.errors
    assert "features: 1 of 1 units" in done.errors
    assert "fine-tuning: 4 of 4 units" in done.errors
    assert "process 1: " in done.errors
    assert "64 runs done" in done.out
    check_same(fresh, heads)


@pytest.mark.slow
def test_one_process_tells_each_unit_too(begun: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "WORTH_A_LINE", 0.0)
    done = begun.run(*PATHS, "--threads", "1")
    for name in ("swa-cyclical", "pswa"):
        assert re.search(rf"^{name}( and \d+ more)? at seed 0, \d+ s$", done.errors, re.M)


@pytest.mark.slow
def test_killed_workers_and_a_killed_master_cost_nothing_but_time(
    begun: Place, network: Place
) -> None:
    lines: list[str] = []
    process = begun.process(*PATHS, *SPREAD)
    assert process.stderr is not None
    wait_for_states(begun, process)
    for worker in workers_of(process):  # the one with a state; the other may still be starting
        os.kill(worker, signal.SIGKILL)
    while not lines or "goes on after" not in lines[-1]:  # another one, from where it was
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    assert any("lost (killed by signal 9)" in line for line in lines)
    workers = workers_of(process)
    process.kill()
    ended(process)
    deadline = time.monotonic() + 60
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, workers))  # they keep their states, and end
    done = begun.run(*PATHS, "--threads", "1")  # here, in one process
    assert done.code == 0, done.errors
    check_same(begun, network)


@pytest.mark.slow
def test_an_error_of_a_worker_is_the_commands(fresh: Place) -> None:
    with fresh.study.open("a") as study:
        study.write("pretrain: {minimum_accuracy: 99.9}\n")
    done = fresh.run(*HEADS, "--on", "processes", "--jobs", "1")
    assert done.code == 1
    assert "pretrain.minimum_accuracy is 99.9 %" in done.errors
    assert "Traceback" not in done.errors


# --- side by side, as on a GPU --------------------------------------------------------------


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes on a CPU, too."""
    monkeypatch.setattr(experiments, "Lanes", lambda device: Lanes(most=3))


@pytest.mark.slow
@pytest.mark.usefixtures("side_by_side")
def test_trajectories_side_by_side_pause_together_and_go_on(
    begun: Place, network: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()
    wish = Interrupted("asked to pause", at_safe_point=True)
    with monkeypatch.context() as patched:
        patched.setattr(Pause, "wished", property(lambda pause: wish if next(calls) > 20 else None))
        done = begun.run(*PATHS, "--threads", "1")
    assert done.code == 130, done.errors
    assert "so did 1 beside it" in done.errors
    assert all(list(group.folder.glob("state-*.json")) for group in groups(begun))
    assert len(groups(begun)) == 2
    done = begun.run(*PATHS, "--threads", "1")
    assert done.code == 0, done.errors
    assert done.errors.count("goes on after") == 2
    check_same(begun, network)


@pytest.mark.slow
@pytest.mark.usefixtures("side_by_side")
def test_an_error_of_one_trajectory_keeps_what_the_others_did(
    begun: Place, network: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_if_due = GroupCheckpoints.keep_if_due

    def fails_once(checkpoints: GroupCheckpoints, state: Callable[[], State]) -> None:
        if "pswa" in checkpoints._worker.runs and checkpoints._worker.epoch == 1:
            raise InputError("no more")
        keep_if_due(checkpoints, state)

    with monkeypatch.context() as patched:
        patched.setattr(GroupCheckpoints, "keep_if_due", fails_once)
        done = begun.run(*PATHS, "--threads", "1", "--save-every", "1h")
    assert done.code == 2
    kept = [g for g in groups(begun) if list(g.folder.glob("state-*.json"))]
    assert len(kept) == len(groups(begun)) - 1 == 1
    done = begun.run(*PATHS, "--threads", "1")
    assert done.code == 0, done.errors
    check_same(begun, network)


# --- shares ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_shares_give_the_same_records(fresh: Place, heads: Place) -> None:
    for share in ("2/4", "4/4", "1/4", "3/4"):
        done = fresh.run(*HEADS, "--shard", share)
        assert done.code == 0, done.errors
        assert "16 runs done" in done.out
    check_same(fresh, heads)


@pytest.mark.slow
def test_the_share_that_ends_last_writes_the_documents(fresh: Place) -> None:
    first = fresh.run("reproduce", *TINY, "--shard", "2/2")
    assert first.code == 0, first.errors
    assert "documents: not made: 17 runs are still to be done" in first.out
    assert not (fresh.documents / "table.csv").exists()
    assert {path.name[:6] for path in fresh.documents.glob("landscape/*/*.json")} == {"seed-1"}
    last = fresh.run("reproduce", *TINY, "--shard", "1/2")
    assert last.code == 0, last.errors
    assert "documents" not in last.out
    for name in ("table.csv", "flatness.csv", "report.html"):
        assert (fresh.documents / name).is_file()
    assert json.loads((fresh.documents / "manifest.json").read_text())["seeds"] == [0, 1]


@pytest.mark.slow
def test_the_last_share_writes_documents_where_a_start_diverged(fresh: Place) -> None:
    wild = "{schedule: constant, learning_rate: 1.0e+38}"
    with fresh.study.open("a") as study:
        study.write(f"pretrain: {{rate: {wild}}}\ndiverged: record\n")
    for share in ("1/2", "2/2"):
        done = fresh.run("finetune", "-m", "all", *TINY, "--shard", share)
        assert done.code == 1
        assert "No method can start there" in done.errors
    done = fresh.run("reproduce", *TINY, "--shard", "2/2")
    assert "not made" not in done.out
    assert (fresh.documents / "table.md").is_file()


@pytest.mark.slow
def test_a_signal_to_all_while_workers_start_is_a_pause(fresh: Place) -> None:
    """As a queue sends it: to the command and to its workers."""
    command = [sys.executable, "-m", "swabench", *HEADS, "--on", "processes", "--jobs", "1"]
    process = subprocess.Popen(
        command, cwd=fresh.folder, env={**os.environ, **fresh.environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: workers_of(process), process)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGTERM)
    done = ended(process)
    assert done.code == 143
    assert "Traceback" not in done.errors
    assert "did not start" not in done.errors


def test_a_study_that_is_to_be_tuned_is_tuned_before_its_shares(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path, tmp_path)
    done = place.run("reproduce", "-c", "mnist-tuned", "--shard", "1/2")
    assert done.code == 2
    assert "run `swabench tune --config mnist-tuned`, then the shares" in done.errors


# --- planning -------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_spreading_gains_is_told_beforehand(fresh: Place) -> None:
    asked = ("validate", *TINY, "--seeds", "6", "--threads", "1")
    plan = json.loads(fresh.run(*asked, "--jobs", "3", "--json").out)["spread"]
    assert [wave["title"] for wave in plan["units"]] == [
        "frozen layers",
        "pretraining",
        "fine-tuning",
    ]
    assert [len(wave["seconds"]) for wave in plan["units"]] == [1, 6, 6]
    times = plan["seconds_on_workers"]
    assert list(times) == ["1", "3", "8", "64"]
    assert times["1"] > times["3"] > times["8"] == times["64"] == plan["longest_chain_seconds"]
    words = fresh.run(*asked, "--on", "ray").out
    assert "6 of fine-tuning, " in words
    assert "the longest chain" in words
    assert "units" not in fresh.run(*asked).out
