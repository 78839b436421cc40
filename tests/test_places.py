"""Places to run: that no unit is lost, doubled or left behind, whatever becomes of workers.

Workers here are made up; real ones are in test_spreading.py.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest

from swabench.cli import options
from swabench.records import RecordStore
from swabench.runs.hardware import check_hardware, hardware_of
from swabench.runs.places import PLACES, Options, base, kind_of_place, place_when_needed
from swabench.runs.places.base import Job, wait_until_seen
from swabench.runs.places.local import Local
from swabench.runs.places.pool import (
    MOST_TRIES,
    Done,
    Event,
    Failed,
    Lost,
    Note,
    Paused,
    Pool,
    Ready,
    Worker,
)
from swabench.runs.units import Unit
from swabench.study.study import Study
from swabench.system.device import DEVICES
from swabench.system.errors import InputError, SwabenchError
from swabench.system.pausing import Interrupted, Pause
from swabench.system.progress import SilentProgress
from tests.made_up import ENVIRONMENT, study_with, write_run

Answer = Callable[["MadeUp", Unit], Sequence[Event]]


class Told(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []
        super().__init__(self.lines.append)

    def say(self, line: str) -> None:
        self.lines.append(line)


@dataclass(eq=False)
class MadeUp:
    """A worker that answers at once, as it is told to."""

    name: str
    answer: Answer
    hardware: str = "one kind"
    waiting: list[Event] = field(default_factory=list)
    begun: list[Unit] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        self.waiting.append(Ready(self.hardware))

    def begin(self, job: Job, unit: Unit) -> None:
        self.begun.append(unit)
        self.waiting += self.answer(self, unit)

    def events(self) -> list[Event]:
        found, self.waiting = self.waiting, []
        return found

    def pause(self) -> None:
        self.waiting.append(Paused())

    def close(self) -> None:
        self.closed = True

    def join(self) -> None:
        assert self.closed


def does_it(worker: MadeUp, unit: Unit) -> Sequence[Event]:
    return [Done(2.0, {(name, seed): "ab" for name in unit.names for seed in unit.seeds})]


@dataclass
class Made:
    """A pool of made-up workers, and what becomes of it."""

    pool: Pool
    workers: list[MadeUp]
    told: Told
    pause: Pause

    def done(self) -> list[Unit]:
        return [unit for worker in self.workers for unit in worker.begun]


def pool_of(
    size: int, answer: Answer = does_it, hardware: Callable[[int], str] = lambda n: "one kind"
) -> Made:
    workers: list[MadeUp] = []
    told, pause = Told(), Pause()
    turns = iter(range(1000))

    def start(number: int) -> Worker:
        workers.append(MadeUp(f"worker {number}", answer, hardware(number)))
        return workers[-1]

    def wait(some: Sequence[Worker]) -> None:
        next(turns)  # a loop without an end fails the test

    return Made(Pool(size, start, wait, told, pause), workers, told, pause)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(study_with(3), tmp_path)


def job_of(study: Study, folder: Path) -> Job:
    return Job(study, folder, folder, folder, ("validation", "test"), 120.0)


def units(*seeds: int) -> list[Unit]:
    return [Unit("finetune", (seed,), ("sgd", "swa")) for seed in seeds]


FEATURES = [Unit("features", (0,))]


def test_units_are_shared_out_after_what_all_need(job: Job) -> None:
    made = pool_of(2)
    written = made.pool.carry_out(job, "work", units(0, 1, 2))
    assert written == {(name, seed): "ab" for name in ("sgd", "swa") for seed in (0, 1, 2)}
    assert made.workers[0].begun[0] == FEATURES[0]
    assert sorted(made.done()[1:], key=str) == units(0, 1, 2)
    assert [len(worker.begun) for worker in made.workers] == [3, 1]
    assert "worker 1: sgd and 1 more at seed 0, 2 s" in made.told.lines


def test_workers_stay_and_are_no_more_than_there_is_to_do(job: Job) -> None:
    made = pool_of(5)
    made.pool.carry_out(job, "work", units(0, 1))
    made.pool.carry_out(job, "more work", units(0, 1, 2))
    assert len(made.workers) == 3
    assert made.done().count(FEATURES[0]) == 1  # once a job
    assert not any(worker.closed for worker in made.workers)
    made.pool.close()
    assert all(worker.closed for worker in made.workers)


def test_nothing_to_do_starts_nothing(job: Job) -> None:
    made = pool_of(2)
    assert made.pool.carry_out(job, "work", []) == {}
    assert not made.workers


def test_a_lost_workers_unit_goes_to_another(job: Job) -> None:
    def once(worker: MadeUp, unit: Unit) -> Sequence[Event]:
        lost = unit.seeds == (1,) and worker is made.workers[0]
        return [Lost("killed by signal 9")] if lost else does_it(worker, unit)

    made = pool_of(1, once)
    written = made.pool.carry_out(job, "work", units(1))
    assert set(written) == {("sgd", 1), ("swa", 1)}
    assert [worker.begun for worker in made.workers] == [units(1), units(1)]
    assert made.workers[0].closed
    assert "worker 1: lost (killed by signal 9); sgd and 1 more at seed 1 goes to another" in (
        made.told.lines
    )


def test_a_worker_that_was_asked_to_end_by_others_is_replaced(job: Job) -> None:
    def once(worker: MadeUp, unit: Unit) -> Sequence[Event]:
        return [Paused()] if worker is made.workers[0] else does_it(worker, unit)

    made = pool_of(1, once)
    assert made.pool.carry_out(job, "work", units(1))
    assert len(made.workers) == 2


def test_a_unit_that_costs_every_worker_its_life_is_given_up(job: Job) -> None:
    made = pool_of(1, lambda worker, unit: [Lost("killed by signal 9")])
    with pytest.raises(SwabenchError, match=r"seed 1: 3 workers were lost with it.*signal 9"):
        made.pool.carry_out(job, "work", units(1))
    assert len(made.workers) == MOST_TRIES


def never_ready(number: int) -> MadeUp:
    worker = MadeUp(f"worker {number}", does_it)
    worker.waiting = [Lost("ended with exit code 1")]
    return worker


def test_workers_that_do_not_start_are_told(job: Job) -> None:
    made = pool_of(1)
    made.pool._start = never_ready
    with pytest.raises(SwabenchError, match=r"worker 1: did not start .ended with exit code 1"):
        made.pool.carry_out(job, "work", units(1))
    assert made.told.lines == [
        "worker 1: did not start (ended with exit code 1); another is started"
    ] * (MOST_TRIES - 1)


def test_a_worker_that_does_not_start_is_replaced(job: Job) -> None:
    made = pool_of(1)
    start = made.pool._start
    first = iter([never_ready])
    made.pool._start = lambda number: next(first, start)(number)
    assert made.pool.carry_out(job, "work", units(1))


def test_a_free_number_is_given_again(job: Job) -> None:
    """A GPU has the number: a worker that comes for another takes over its GPU."""

    def once(worker: MadeUp, unit: Unit) -> Sequence[Event]:
        return [Lost("killed by signal 9")] if worker is made.workers[0] else []

    made = pool_of(3, once)

    def answers(some: Sequence[Worker]) -> None:
        if len(some) == 3 and made.workers[-1].name == "worker 1":
            for worker in made.workers[1:]:
                worker.waiting += [e for unit in worker.begun for e in does_it(worker, unit)]
                worker.begun.clear()

    made.pool._wait = answers
    made.pool._execute(job, "work", units(0, 1, 2))
    assert [worker.name for worker in made.workers] == [f"worker {n}" for n in (1, 2, 3, 1)]


def test_a_unit_that_fails_stops_the_others_and_is_not_tried_again(job: Job) -> None:
    def fails(worker: MadeUp, unit: Unit) -> Sequence[Event]:
        if unit.task == "features":
            return does_it(worker, unit)
        return [Failed(InputError("no such thing"))] if unit.seeds == (1,) else []

    made = pool_of(2, fails)
    with pytest.raises(InputError, match="no such thing"):
        made.pool.carry_out(job, "work", units(0, 1, 2))
    assert made.done().count(units(1)[0]) == 1
    assert units(2)[0] not in made.done()
    busy = next(worker for worker in made.workers if units(0)[0] in worker.begun)
    assert busy.closed  # it was paused, and left


def test_lines_of_workers_say_whose_they_are(job: Job) -> None:
    made = pool_of(1, lambda worker, unit: [Note("half way"), *does_it(worker, unit)])
    made.pool.carry_out(job, "work", units(0))
    assert made.told.lines[0] == "worker 1: half way"


@pytest.mark.parametrize("left", [(), (1, 2)])
def test_a_pause_is_passed_on_and_nothing_more_handed_out(job: Job, left: tuple[int, ...]) -> None:
    def hears(worker: MadeUp, unit: Unit) -> Sequence[Event]:
        os.kill(os.getpid(), signal.SIGUSR1)
        return []

    made = pool_of(1, hears)
    with made.pause.listening(), pytest.raises(Interrupted, match="SIGUSR1"):
        made.pool._execute(job, "work", units(0, *left))
    assert made.done() == units(0)
    assert made.workers[0].closed


# --- hardware -------------------------------------------------------------------------------


def kinds(number: int) -> str:
    return "one kind" if number % 2 else "another kind"


def test_units_of_a_seed_stay_on_one_kind_of_hardware(job: Job) -> None:
    made = pool_of(2, hardware=kinds)
    by_path = [Unit("finetune", (seed,), (name,)) for seed in range(4) for name in ("sgd", "swa")]
    made.pool.carry_out(job, "work", by_path)
    where = {seed: set[str]() for seed in range(4)}
    for worker in made.workers:
        for unit in worker.begun:
            if unit.names:
                where[unit.seeds[0]].add(worker.hardware)
    assert all(len(found) == 1 for found in where.values())
    assert set.union(*where.values()) == {"one kind", "another kind"}


def bound(folder: Path, seed: int) -> Study:
    """A study one of whose seeds has a run already, on another kind of device."""
    study = study_with(2)
    environment = {**ENVIRONMENT, "device_name": "another kind"}
    write_run(RecordStore(folder, study), study, "sgd", seed, environment=environment)
    return study


def test_a_seed_that_was_begun_goes_on_where_its_runs_are(tmp_path: Path) -> None:
    study = bound(tmp_path, 1)
    made = pool_of(2, hardware=kinds)
    made.pool.carry_out(job_of(study, tmp_path), "work", units(0, 1))
    assert units(1)[0] in made.workers[1].begun


def test_workers_are_started_until_one_fits(tmp_path: Path) -> None:
    """One unit is left, and the first worker is not such as it wants."""
    study = bound(tmp_path, 1)
    made = pool_of(4, hardware=kinds)
    assert made.pool.carry_out(job_of(study, tmp_path), "work", units(1))
    assert [worker.begun for worker in made.workers] == [[], units(1)]


def test_a_seed_that_fits_nowhere_is_told(tmp_path: Path) -> None:
    study = bound(tmp_path, 1)
    alone = pool_of(1)
    told = "sgd and 1 more at seed 1: there are runs of it on another kind, and the workers have on"
    with pytest.raises(InputError, match=told):
        alone.pool.carry_out(job_of(study, tmp_path), "work", units(1))
    # What trains nothing is not bound; nor is anything where a study mixes.
    rays = [Unit("landscape", (1,), ("rays",))]
    assert pool_of(1).pool.carry_out(job_of(study, tmp_path), "work", rays)
    mixed = study.model_copy(update={"mixed_hardware": "allow"})
    assert pool_of(1).pool.carry_out(job_of(mixed, tmp_path), "work", units(1))


@pytest.mark.parametrize("mixed", ["refuse", "allow"])
def test_a_seed_whose_only_worker_is_lost_is_free_again(
    mixed: Literal["refuse", "allow"], tmp_path: Path
) -> None:
    """Nothing of it is recorded, and a worker of its kind does not come again."""
    study = study_with(2).model_copy(update={"mixed_hardware": mixed})

    def lost(worker: MadeUp, unit: Unit) -> Sequence[Event]:
        return [Lost("killed")] if worker.hardware == "one kind" else does_it(worker, unit)

    made = pool_of(2, lost, hardware=kinds)
    start = made.pool._start

    def later_pending(number: int) -> Worker:
        worker = start(number)
        if len(made.workers) > 2:
            made.workers[-1].waiting.clear()  # there is no room for it
        return worker

    made.pool._start = later_pending
    written = made.pool._execute(job_of(study, tmp_path), "work", units(0, 1))
    assert {seed for _, seed in written} == {0, 1}


def test_runs_of_a_seed_are_not_mixed(tmp_path: Path) -> None:
    study = study_with(3)
    store = RecordStore(tmp_path, study)
    write_run(store, study, "swa", 1, environment={**ENVIRONMENT, "device_name": "another kind"})
    write_run(store, study, "swa", 2)  # an old one does not say
    assert hardware_of(study, store, [0, 1, 2]) == {1: "another kind"}
    check_hardware(study, store, 0, "one kind")
    check_hardware(study, store, 1, "another kind")
    check_hardware(study, store, 2, "one kind")
    with pytest.raises(InputError, match="seed 1 has runs on another kind, and this is one kind"):
        check_hardware(study, store, 1, "one kind")
    mixed = study.model_copy(update={"mixed_hardware": "allow"})
    check_hardware(mixed, store, 1, "one kind")


# --- names ----------------------------------------------------------------------------------

OPTIONS = Options(None, 1, "cpu", 1.0, SilentProgress(), Pause())


def test_places_are_named() -> None:
    assert [kind_of_place(name) for name in PLACES] == ["local", "processes", "ray"]
    assert kind_of_place("ray:10.0.0.1:6379") == "ray"
    assert isinstance(place_when_needed("local", OPTIONS), Local)


@pytest.mark.parametrize("name", ["moon", "", "ray:", "local:here", "processes:2", "Ray", "\x1b"])
def test_a_place_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"--on: .*choose from local, processes, ray, or ray:ADD"):
        place_when_needed(name, OPTIONS)


def test_without_ray_it_is_said_what_to_install(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    place = place_when_needed("ray", OPTIONS)  # documents alone need none
    with pytest.raises(InputError, match=r"--on ray: Ray is not installed; `pip install 'swaben"):
        place.carry_out(job, "work", units(1))
    place.close()


def test_here_nothing_is_handed_out(job: Job) -> None:
    place = Local()
    assert place.carry_out(job, "work", units(0, 1)) == {}
    place.close()


def test_completion_knows_all_places() -> None:
    assert options._places("") == list(PLACES)


def test_completion_knows_all_devices() -> None:
    assert options._devices("") == list(DEVICES)


# --- what other machines wrote -----------------------------------------------------------------


def test_records_of_other_machines_must_be_seen_here_and_be_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_with(2)
    store = RecordStore(tmp_path, study)
    write_run(store, study, "sgd", 0)
    record = store.find("sgd", 0)
    assert record is not None
    wait_until_seen(store, "finetune", {("sgd", 0): record.arrays_sha256})
    monkeypatch.setattr(base, "SEEN_WITHIN", 0.0)
    for run, digest in ((("sgd", 0), "0" * 64), (("sgd", 1), record.arrays_sha256)):
        with pytest.raises(InputError, match=f"sgd at seed {run[1]} .* is not seen here"):
            wait_until_seen(store, "finetune", {run: digest})


def test_a_part_of_the_landscape_that_another_machine_measured_must_be_seen_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_with(1)
    store = RecordStore(tmp_path, study)
    for name in study.row_names:
        write_run(store, study, name, 0)
    tables = {"lines": pd.DataFrame({"loss": [0.25]})}
    store.write_landscape(
        "lines", 0, tables, provenance={}, environment=ENVIRONMENT, seconds=1
    )  # fmt: skip
    record = store.find_landscape("lines", 0)
    assert record is not None
    wait_until_seen(store, "landscape", {("lines", 0): record.identity})
    monkeypatch.setattr(base, "SEEN_WITHIN", 0.0)
    with pytest.raises(InputError, match=r"plane at seed 0 .* is not seen here"):
        wait_until_seen(store, "landscape", {("plane", 0): record.identity})


def test_a_record_that_a_shared_disk_shows_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_with(2)
    store, elsewhere = RecordStore(tmp_path / "here", study), RecordStore(tmp_path / "there", study)
    for each in (store, elsewhere):
        each.prepare()
    write_run(elsewhere, study, "sgd", 0)
    written = elsewhere.find("sgd", 0)
    assert written is not None
    monkeypatch.setattr(time, "sleep", lambda seconds: write_run(store, study, "sgd", 0))
    wait_until_seen(store, "finetune", {("sgd", 0): written.arrays_sha256})
