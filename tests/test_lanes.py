"""Pieces of work side by side in one process, with stand-ins for what only a GPU has."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from filelock import FileLock

from swabench.runs import lanes as module
from swabench.runs.lanes import Lane, Lanes, Turns
from swabench.runs.sharing import share
from swabench.system.errors import NoMemoryError
from swabench.system.pausing import Interrupted
from swabench.training.loop import Stopped

Log = list[str]


def never(unit: str) -> None:
    raise AssertionError(unit)


def run(
    folder: Path,
    lanes: Lanes | None,
    log: Log,
    turns: int = 2,
    failing: Mapping[str, BaseException] = MappingProxyType({}),
    once: bool = False,
) -> None:
    """Units that take some turns each, of which some fail in their second; or fail `once`."""
    left = dict(failing)

    def work(unit: str) -> Turns:
        try:
            for turn in range(turns):
                if turn == 1 and unit in left:
                    raise left.pop(unit) if once else left[unit]
                log.append(f"{unit}{turn}")
                yield
        except Stopped:
            log.append(f"{unit} stopped")
            raise
        log.append(f"{unit} done")

    share("abc", lambda unit: FileLock(folder / unit), work, never, lanes)


def all_locks_are_free(folder: Path) -> None:
    for unit in "abc":
        FileLock(folder / unit, is_singleton=False).acquire(timeout=0)


def test_without_lanes_units_are_done_one_after_another(tmp_path: Path) -> None:
    log: Log = []
    run(tmp_path, None, log)
    assert log == ["a0", "a1", "a done", "b0", "b1", "b done", "c0", "c1", "c done"]


def test_with_several_lanes_units_take_turns(tmp_path: Path) -> None:
    """The first turn is taken at once, so that it is known what a unit takes; then all by turns."""
    log: Log = []
    run(tmp_path, Lanes(most=2), log)
    assert log[:4] == ["a0", "b0", "a1", "b1"]
    assert log[4:6] == ["a done", "b done"]
    assert log[6:] == ["c0", "c1", "c done"]
    assert not list(tmp_path.iterdir())  # no locks are left


def test_a_pause_stops_all_and_begins_none(tmp_path: Path) -> None:
    log: Log = []
    pauses = {unit: Interrupted(f"asked to, {unit}", at_safe_point=True) for unit in "ab"}
    with pytest.raises(Interrupted, match="asked to, a; so did 1 beside it"):
        run(tmp_path, Lanes(most=2), log, turns=3, failing=pauses)
    assert log == ["a0", "b0"]
    all_locks_are_free(tmp_path)


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    """Wherever a unit is; the others get no turn."""
    log: Log = []
    with pytest.raises(Interrupted):
        run(tmp_path, Lanes(most=3), log, turns=3, failing={"a": Interrupted("asked twice")})
    assert log[:3] == ["a0", "b0", "c0"]
    assert not {"b1", "b stopped", "c1", "c stopped"} & set(log)
    all_locks_are_free(tmp_path)


def test_after_an_error_the_others_are_told_to_keep_what_they_have(tmp_path: Path) -> None:
    log: Log = []
    with pytest.raises(ValueError, match="no"):
        run(tmp_path, Lanes(most=3), log, turns=3, failing={"b": ValueError("no")})
    assert log == ["a0", "b0", "c0", "a1", "a stopped", "c stopped"]
    all_locks_are_free(tmp_path)


def test_what_does_not_fit_beside_others_goes_on_beside_fewer(tmp_path: Path) -> None:
    log: Log = []
    lacking: dict[str, BaseException] = {"b": NoMemoryError("no memory")}
    run(tmp_path, Lanes(most=3), log, failing=lacking, once=True)
    assert log[:4] == ["a0", "b0", "c0", "a1"]
    assert {"a done", "b done", "c done"} <= set(log)
    assert log.index("b done") > max(log.index("a done"), log.index("c done"))
    all_locks_are_free(tmp_path)


def test_what_does_not_fit_alone_is_told(tmp_path: Path) -> None:
    lacking: dict[str, BaseException] = {"a": NoMemoryError("no memory")}
    with pytest.raises(NoMemoryError):
        run(tmp_path, None, [], failing=lacking)
    all_locks_are_free(tmp_path)


def test_seconds_are_shared_by_all_that_is_under_way() -> None:
    now = 0.0
    lanes = Lanes(most=4, clock=lambda: now)
    first = lanes.enter()
    now = 10
    assert lanes.seconds() == 10
    others = [lanes.enter() for _ in range(3)]
    now = 50
    assert lanes.seconds() == 20
    for lane in others:
        lanes.leave(lane)
    now = 60
    assert lanes.seconds() == 30
    lanes.leave(first)


class Gpu:
    """Memory that pieces of work take, and what torch keeps of it when they end."""

    def __init__(self, free: int) -> None:
        self.size = self.free = free
        self.kept = 0
        self.on_a_stream = False
        self.device = torch.device("cuda")

    def piece(self, takes: int) -> Turns:
        self.take(takes)
        yield
        self.kept += takes

    def take(self, bytes_: int) -> None:
        again = min(bytes_, self.kept)
        self.kept -= again
        self.free -= bytes_ - again

    @contextmanager
    def computing(self, stream: object) -> Iterator[None]:
        """On a stream, which is this stand-in itself."""
        assert stream is self
        self.on_a_stream = True
        yield
        self.on_a_stream = False

    def empty_cache(self) -> None:
        self.free += self.kept
        self.kept = 0


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    found = Gpu(1000)
    monkeypatch.setattr(module, "_stream", lambda device, number: found)
    monkeypatch.setattr(torch.cuda, "stream", found.computing)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", found.empty_cache)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (found.free, found.size))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: found.size - found.free)
    return found


@pytest.mark.parametrize(("takes", "lanes"), [(10, 6), (100, 6), (150, 4), (300, 1), (900, 1)])
def test_as_many_go_on_as_fit_into_a_gpus_memory(gpu: Gpu, takes: int, lanes: int) -> None:
    """Three times what one takes must be free; also where some ended, and memory is kept."""
    places = Lanes(torch.device("cuda"))
    under_way: list[tuple[Lane, Turns]] = []
    for _ in range(20):
        while places.have_room:
            lane, work = places.enter(), gpu.piece(takes)
            lane.take_turn(work)
            under_way.append((lane, work))
        assert len(under_way) == lanes
        lane, work = under_way.pop(0)
        with pytest.raises(StopIteration):
            lane.take_turn(work)
        places.leave(lane)


def test_a_network_that_takes_all_memory_still_trains_alone(gpu: Gpu) -> None:
    places = Lanes(torch.device("cuda"))
    gpu.free = 0
    for _ in range(2):
        assert places.have_room
        lane = places.enter()
        lane.take_turn(gpu.piece(0))
        places.leave(lane)


def test_every_turn_and_the_end_are_on_the_lanes_stream(gpu: Gpu) -> None:
    """A state that is kept from another stream would be read before the steps are done."""
    seen: list[tuple[str, bool]] = []

    def work() -> Turns:
        try:
            for turn in ("first", "second"):
                seen.append((turn, gpu.on_a_stream))
                yield
        except Stopped:
            seen.append(("stopped", gpu.on_a_stream))
            raise

    lane, piece = Lanes(torch.device("cuda")).enter(), work()
    lane.take_turn(piece)
    lane.take_turn(piece)
    with pytest.raises(Stopped):
        lane.stop(piece, Stopped())
    assert seen == [("first", True), ("second", True), ("stopped", True)]


def test_where_memory_did_not_suffice_there_are_fewer_lanes() -> None:
    lanes = Lanes(most=4)
    entered = [lanes.enter() for _ in range(3)]
    lanes.narrow()  # there is no room for the third
    lanes.leave(entered.pop())
    assert not lanes.have_room
    lanes.leave(entered.pop())
    assert lanes.have_room
    lanes.narrow()
    lanes.leave(entered.pop())
    assert lanes.have_room  # one always goes on
