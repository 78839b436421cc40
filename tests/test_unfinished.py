"""What is kept of runs under way: states on disk, when they are written, and who may use them."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from swabench.cli.printing import say_at_once
from swabench.records import RecordStore, unfinished
from swabench.records.unfinished import Unfinished, Worker
from swabench.runs import checkpoints as checkpoints_room
from swabench.runs.checkpoints import GroupCheckpoints
from swabench.runs.lanes import Turns
from swabench.runs.sharing import share
from swabench.system.errors import InputError
from swabench.system.files import host
from swabench.system.pausing import Interrupted, Pause
from swabench.system.progress import LineProgress
from swabench.training.state import as_arrays, as_tensors
from tests.made_up import study_with

ENVIRONMENT = {
    "device": "cpu", "device_name": "a chip", "threads": 2, "torch": "2.12", "swabench": "0.1",
    "commit": "1" * 40,
}  # fmt: skip
RUNS = {"swa": "1" * 16, "sgd": "2" * 16}


def never(line: str) -> None:
    pytest.fail(line)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return (
            isinstance(other, np.ndarray)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or one != one)


# --- states on disk ------------------------------------------------------------------------

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats()
    | st.text(max_size=5)
    | arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.bool_]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    )
)
STATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(STATES)
def test_a_state_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    place = Unfinished(tmp_path_factory.mktemp("states") / "group")
    place.keep(state, {"seconds": 1.5})
    found = place.load(never)
    assert found is not None
    assert same(found[0], state)
    assert found[1] == {"seconds": 1.5}
    assert same(as_arrays(as_tensors(found[0])), state)


def written(place: Unfinished) -> dict[str, int]:
    """When each file was written, by name."""
    return {path.name: path.stat().st_mtime_ns for path in place.folder.iterdir()}


def test_what_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    place = Unfinished(tmp_path / "group")
    held = np.arange(5.0)
    place.keep({"held": held, "moves": np.zeros(3)}, {})
    first = written(place)
    place.keep({"held": held.copy(), "again": held, "moves": np.ones(3)}, {})
    second = written(place)
    assert len(first) == 3
    assert len(second) == 5  # a state and an array more
    assert first.items() <= second.items()


def test_the_two_newest_states_stay_and_nothing_that_they_do_not_name(tmp_path: Path) -> None:
    place = Unfinished(tmp_path / "group")
    for number in range(12):
        place.keep({"n": number, "weights": np.full(4, float(number))}, {})
    assert len(written(place)) == 4
    found = place.load(never)
    assert found is not None
    assert found[0]["n"] == 11


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 4
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["gone", "empty", "cut", "flipped"])
@pytest.mark.parametrize("what", ["state-3.json", "array"])
def test_of_a_damaged_state_the_one_before_is_used(tmp_path: Path, what: str, how: str) -> None:
    if (what, how) == ("state-3.json", "gone"):
        pytest.skip("then it is not the newest")
    place = Unfinished(tmp_path / "group")
    for number in range(3):
        place.keep({"n": number, "weights": np.full(4, float(number))}, {})
    newest = max(place.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    damage(newest if what == "array" else place.folder / what, how)
    said: list[str] = []
    found = place.load(said.append)
    assert found is not None
    assert found[0]["n"] == 1
    assert len(said) == 1
    assert "state-3.json" in said[0]
    place.keep({"n": 7, "weights": np.full(4, 7.0)}, {})  # and training goes on
    again = place.load(never)
    assert again is not None
    assert again[0]["n"] == 7


def test_an_array_that_was_damaged_is_written_again(tmp_path: Path) -> None:
    """It is part of every state, so none would be whole any more."""
    held = np.arange(4.0)
    place = Unfinished(tmp_path / "group")
    place.keep({"held": held, "n": 1}, {})
    (array,) = place.folder.glob("*.safetensors")
    damage(array, "flipped")
    again = Unfinished(tmp_path / "group")
    assert again.load(lambda line: None) is None
    again.keep({"held": held, "n": 2}, {})
    found = Unfinished(tmp_path / "group").load(never)
    assert found is not None
    assert found[0]["n"] == 2


def test_a_damaged_state_does_not_push_out_a_whole_one(tmp_path: Path) -> None:
    place = Unfinished(tmp_path / "group")
    for number in (1, 2):
        place.keep({"n": number}, {})
    damage(place.folder / "state-2.json", "cut")
    again = Unfinished(tmp_path / "group")
    assert again.load(lambda line: None) is not None
    again.keep({"n": 3}, {})
    assert sorted(path.name for path in place.folder.iterdir()) == ["state-1.json", "state-3.json"]


def test_where_no_state_is_whole_there_is_none(tmp_path: Path) -> None:
    place = Unfinished(tmp_path / "group")
    assert place.load(never) is None
    for number in range(2):
        place.keep({"weights": np.full(4, float(number))}, {})
    for path in place.folder.glob("*.safetensors"):
        damage(path, "cut")
    said: list[str] = []
    assert place.load(said.append) is None
    assert len(said) == 2


# --- when states are kept ------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Wishing(Pause):
    """A pause that was wished for."""

    wished = Interrupted("asked to end", 143)


def checkpoints_of(
    folder: Path,
    clock: Clock | None = None,
    say: Callable[[str], None] = never,
    pause: Pause | None = None,
    **changes: Any,
) -> GroupCheckpoints:
    options = {"provenance": {"data": "d"}, "environment": ENVIRONMENT, "save_every": 60.0}
    return GroupCheckpoints(
        Unfinished(folder / "group"),
        changes.pop("runs", RUNS),
        changes.pop("seed", 4),
        9,
        pause=pause or Pause(),
        progress=LineProgress(say),
        clock=clock or Clock(),
        **{**options, **changes},
    )


def state_at(epoch: int) -> Callable[[], dict[str, Any]]:
    return lambda: {"epoch": epoch, "step": 10 * epoch}


def kept_epoch(folder: Path) -> int | None:
    found = Unfinished(folder / "group").load(never)
    return found[0]["epoch"] if found else None


def test_a_state_is_kept_when_the_last_is_old_enough(tmp_path: Path) -> None:
    clock = Clock()
    checkpoints = checkpoints_of(tmp_path, clock)
    assert checkpoints.load() is None
    found = []
    for epoch in range(1, 8):
        clock.now += 25
        checkpoints.keep_if_due(state_at(epoch))
        found.append(kept_epoch(tmp_path))
    assert found == [None, None, 3, 3, 3, 6, 6]


def worker_of(folder: Path) -> Worker:
    worker = Unfinished(folder / "group").worker()
    assert worker
    return worker


def test_others_can_see_who_trains_and_how_far_it_is(tmp_path: Path) -> None:
    clock = Clock()
    checkpoints = checkpoints_of(tmp_path, clock)
    before = time.time()
    checkpoints.load()
    began = worker_of(tmp_path)
    assert (began.runs, began.seed, began.epochs, began.epoch, began.kept) == (RUNS, 4, 9, 0, None)
    assert (began.host, began.process) == (socket.gethostname(), os.getpid())
    assert abs(began.since - before) < 60
    assert began.may_live
    for epoch in (1, 2, 3):
        clock.now += 4
        checkpoints.keep_if_due(state_at(epoch))
    assert worker_of(tmp_path) == replace(began, epoch=2)  # at most every five seconds
    clock.now += 60
    checkpoints.keep_if_due(state_at(4))
    assert worker_of(tmp_path) == replace(began, epoch=4, kept=4)


def test_a_worker_that_ended_does_not_live() -> None:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    worker = Worker(RUNS, 4, 9, 0, None, socket.gethostname(), int(done.stdout), 0.0)
    assert not worker.may_live
    assert replace(worker, host="another machine").may_live


LOOK = """
import sys
from pathlib import Path

from swabench.records import RecordStore
from swabench.records.status import begun_groups
from swabench.study.study import Study

results, study = map(Path, sys.argv[1:])
store = RecordStore(results, Study.model_validate_json(study.read_text()))
print([group.works for group in begun_groups(store)])
"""


def test_a_group_is_under_way_while_its_lock_is_held(tmp_path: Path) -> None:
    """A number of a process that is gone may be another's by now."""
    study = study_with(1)
    store = RecordStore(tmp_path, study)
    place = store.unfinished(["swa"], 0)
    place.write_worker(Worker({"swa": "a"}, 0, 9, 3, None, host(), os.getpid(), 0.0))
    content = tmp_path / "study.json"
    content.write_text(study.model_dump_json())

    def seen_by_another() -> str:
        command = [sys.executable, "-c", LOOK, str(tmp_path), str(content)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert seen_by_another() == "[False]"
    with place.lock():
        assert seen_by_another() == "[True]"
    assert seen_by_another() == "[False]"


def test_a_wish_to_pause_keeps_the_state_and_says_so(tmp_path: Path) -> None:
    checkpoints_of(tmp_path).pause_if_asked(pytest.fail)  # nobody wishes it
    checkpoints = checkpoints_of(tmp_path, pause=Wishing())
    with pytest.raises(Interrupted) as caught:
        checkpoints.pause_if_asked(state_at(5))
    assert caught.value.exit_code == 143
    what = "swa and 1 more at seed 4"
    assert str(caught.value) == f"asked to end (0 of 9 epochs of {what} are done)"
    assert kept_epoch(tmp_path) == 5


def test_what_goes_on_says_where_and_counts_all_its_time(tmp_path: Path) -> None:
    clock = Clock()
    first = checkpoints_of(tmp_path, clock, pause=Wishing())
    clock.now += 100
    with pytest.raises(Interrupted):
        first.pause_if_asked(state_at(5))
    said: list[str] = []
    told: list[int] = []
    second = checkpoints_of(tmp_path, clock, said.append, count_before=told.append)
    assert second.load() == {"epoch": 5, "step": 50}
    assert said == ["swa and 1 more at seed 4 goes on after 5 of 9 epochs"]
    assert worker_of(tmp_path).epoch == worker_of(tmp_path).kept == 5
    assert told == [5]
    clock.now += 30
    assert second.seconds == 130
    second.done()
    assert not (tmp_path / "group").exists()


def keep_one(folder: Path) -> None:
    with pytest.raises(Interrupted):
        checkpoints_of(folder, pause=Wishing()).pause_if_asked(state_at(5))


def test_a_state_of_another_version_of_states_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_one(tmp_path)
    monkeypatch.setattr(checkpoints_room, "VERSION", 2)
    with pytest.raises(InputError, match="another version"):
        checkpoints_of(tmp_path).load()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runs": {"swa": "1" * 16}}, "runs"),
        ({"seed": 5}, "seed"),
        ({"provenance": {"data": "e"}}, "provenance"),
        ({"environment": {**ENVIRONMENT, "device": "cuda"}}, "begun on cpu, and this is cuda"),
    ],
)
def test_a_state_of_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    keep_one(tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        checkpoints_of(tmp_path, **changes).load()
    assert str(tmp_path / "group") in str(caught.value)
    assert kept_epoch(tmp_path) == 5  # it is still there


@pytest.mark.parametrize(
    ("key", "value"), [("threads", 1), ("torch", "2.11"), ("device_name", "another chip")]
)
def test_a_state_that_rounds_otherwise_is_used_with_a_word(
    tmp_path: Path, key: str, value: object
) -> None:
    keep_one(tmp_path)
    said: list[str] = []
    found = checkpoints_of(tmp_path, say=said.append, environment={**ENVIRONMENT, key: value})
    assert found.load() == {"epoch": 5, "step": 50}
    assert f"begun with {key} {ENVIRONMENT[key]} (now {value})" in said[0]
    assert len(said) == 2


def test_where_a_state_cannot_be_kept_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_one(tmp_path)
    clock, said = Clock(), list[str]()
    checkpoints = checkpoints_of(tmp_path, clock, said.append)

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(unfinished, "write_file", full)
    clock.now += 100
    checkpoints.keep_if_due(state_at(6))
    assert "the state is not kept (No space left on device)" in said[0]
    assert kept_epoch(tmp_path) == 5
    clock.now += 10  # not tried again at once, and who trains cannot be told either
    checkpoints.keep_if_due(state_at(7))
    assert len(said) == 1
    again = checkpoints_of(tmp_path, clock, said.append, pause=Wishing())
    assert again.load() == {"epoch": 5, "step": 50}
    with pytest.raises(Interrupted, match="could not be kept"):
        again.pause_if_asked(state_at(8))


# --- pausing -------------------------------------------------------------------------------

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM]


@pytest.fixture
def listening() -> Iterator[Pause]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    pause = Pause(say_at_once)
    with pause.listening():
        yield pause
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_at_first_and_raised_at_the_second(
    listening: Pause, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        with listening.at_safe_points():
            assert listening.wished is None
            signal.raise_signal(number)
            assert "once more stops at once" in capfd.readouterr().err
            assert listening.wished
            done.append("the step")
            signal.raise_signal(number)
            done.append("no more")

    done: list[str] = []
    with pytest.raises(Interrupted) as caught:
        work()
    ends = number in (signal.SIGTERM, signal.SIGHUP)
    assert caught.value.exit_code == (128 + number if ends else 130)
    assert done == ["the step"]


def test_a_wish_that_nothing_came_to_stop_for_is_raised_at_the_end(listening: Pause) -> None:
    """Else whatever comes next would run on, though it was told that it pauses."""

    def work() -> None:
        with listening.at_safe_points():
            signal.raise_signal(signal.SIGUSR1)
            done.append("the last step, and its records")
        done.append("what comes next")

    done: list[str] = []
    with pytest.raises(Interrupted):
        work()
    assert done == ["the last step, and its records"]


def test_where_nothing_can_be_kept_a_signal_stops_at_once(listening: Pause) -> None:
    with pytest.raises(Interrupted, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
    assert listening.wished is None


def test_a_terminal_that_is_gone_does_not_spoil_a_pause(listening: Pause) -> None:
    kept = os.dup(2)
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        os.dup2(theirs, 2)
        with listening.at_safe_points():
            signal.raise_signal(signal.SIGHUP)
    except Interrupted as pause:
        code = pause.exit_code
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(theirs)
    assert code == 129


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Pause().listening():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_time_budget_ends(listening: Pause) -> None:
    def work() -> None:
        with listening.at_safe_points():
            deadline = time.monotonic() + 10
            while not listening.wished and time.monotonic() < deadline:
                time.sleep(0.01)

    listening.after(0.05)
    with pytest.raises(Interrupted, match="the time given by --stop-after is up"):
        work()


def test_without_listening_nothing_is_heard() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Pause().at_safe_points():
        pass
    assert signal.getsignal(signal.SIGTERM) == before


# --- sharing -------------------------------------------------------------------------------


def test_what_another_process_has_in_hand_comes_last(tmp_path: Path) -> None:
    held = FileLock(tmp_path / "b")
    held.acquire()
    worked: list[str] = []
    waited: list[str] = []

    def work(unit: str) -> Turns:
        worked.append(unit)
        with pytest.raises(TimeoutError):  # nobody else can have it now
            FileLock(tmp_path / unit, is_singleton=False).acquire(timeout=0)
        yield from ()

    def says_waits(unit: str) -> None:
        waited.append(unit)
        assert worked == ["a", "c"]
        held.release()

    share(["a", "b", "c"], lambda unit: FileLock(tmp_path / unit), work, says_waits)
    assert (worked, waited) == (["a", "c", "b"], ["b"])


def test_a_unit_that_fails_gives_its_lock_back(tmp_path: Path) -> None:
    def fail(unit: str) -> Turns:
        yield
        raise ValueError(unit)

    with pytest.raises(ValueError, match="a"):
        share(["a"], lambda unit: FileLock(tmp_path / unit), fail, never)
    FileLock(tmp_path / "a").acquire(timeout=0)
