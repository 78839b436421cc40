"""Pieces of work side by side in one process, with stand-ins for what only a GPU has."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from filelock import FileLock

from swabench.runs import lanes as module
from swabench.runs.lanes import Lanes
from swabench.runs.sharing import Turns, share
from swabench.system.pausing import Interrupted

Log = list[str]


def never(unit: str) -> None:
    raise AssertionError(unit)


def run(
    folder: Path,
    lanes: Lanes | None,
    log: Log,
    turns: int = 2,
    failing: Mapping[str, BaseException] = MappingProxyType({}),
) -> None:
    """Units that take some turns each, of which some fail in their second."""

    def work(unit: str) -> Turns:
        try:
            for turn in range(turns):
                if turn == 1 and unit in failing:
                    raise failing[unit]
                log.append(f"{unit}{turn}")
                yield
        except GeneratorExit:
            log.append(f"{unit} closed")
            raise
        log.append(f"{unit} done")

    share("abc", lambda unit: FileLock(folder / unit), work, never, lanes)


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
    pauses = {unit: Interrupted("asked to") for unit in "ab"}
    with pytest.raises(Interrupted, match="asked to"):
        run(tmp_path, Lanes(most=2), log, turns=3, failing=pauses)
    assert log == ["a0", "b0"]
    for unit in "abc":
        FileLock(tmp_path / unit).acquire(timeout=0)


def test_an_error_closes_the_others_and_gives_all_locks_back(tmp_path: Path) -> None:
    log: Log = []
    with pytest.raises(ValueError, match="no"):
        run(tmp_path, Lanes(most=3), log, turns=3, failing={"b": ValueError("no")})
    assert log[:3] == ["a0", "b0", "c0"]
    assert {"a closed", "c closed"} <= set(log)
    for unit in "abc":
        FileLock(tmp_path / unit).acquire(timeout=0)


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
    """Memory that pieces of work take in their first turns."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.device = torch.device("cuda")

    def piece(self, takes: int) -> Iterator[None]:
        self.free -= takes
        yield
        yield


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    found = Gpu(1000)
    monkeypatch.setattr(module, "_stream", lambda device, number: found)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (found.free, 1000))
    return found


@pytest.mark.parametrize(("takes", "lanes"), [(10, 6), (100, 6), (150, 4), (300, 1), (900, 1)])
def test_as_many_begin_as_fit_into_a_gpus_memory(gpu: Gpu, takes: int, lanes: int) -> None:
    """Each time three times what the last one took must be free."""
    places = Lanes(torch.device("cuda"))
    begun = 0
    while places.have_room:
        places.enter().take_turn(gpu.piece(takes))
        begun += 1
    assert begun == lanes


def test_a_network_that_takes_all_memory_still_trains_alone(gpu: Gpu) -> None:
    places = Lanes(torch.device("cuda"))
    gpu.free = 0
    assert places.have_room
    lane = places.enter()
    lane.take_turn(gpu.piece(0))
    places.leave(lane)
    assert places.have_room
