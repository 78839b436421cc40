"""The faults: what happens to a scenario, and what it may do then. A new kind is a class here."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from tests.torture.commands import Command, run
from tests.torture.faulty_files import FAILURES, KILLS, FaultyFiles, Kind, let_the_clock_jump
from tests.torture.scenarios import take_over
from tests.torture.trial import Trial, Whole

KILLED_AT_RANDOM = 100
DAMAGED = 20
PAUSED_AND_DAMAGED = 10
CLOCKS = 10
DISKS = (64, 256, 1024, 65_536)


class Fault(Protocol):
    """Something that goes wrong."""

    @property
    def part(self) -> str:
        """Which part of the campaign it belongs to."""

    def inflict(self, trial: Trial) -> None:
        """Let it happen, and note what is wrong with how commands end."""


@dataclass(frozen=True)
class KilledAtRandom:
    """SIGKILL at a random moment, for one of one, two or four processes on the same folders."""

    number: int
    part: ClassVar[str] = "kills"

    def inflict(self, trial: Trial) -> None:
        """Let it happen."""
        together = trial.rng.choice([1, 1, 2, 4])
        place = trial.place
        commands = [
            Command(place.scenario.command, place.folder, place.environment)
            for _ in range(together)
        ]
        time.sleep(trial.rng.uniform(0, 1.1 * trial.whole.seconds))
        commands[0].kill()
        trial.look_at(commands[0].wait(), {0, -9}, "the one that was killed")
        for command in commands[1:]:
            trial.look_at(command.wait(), {0}, "one that was not killed")


@dataclass(frozen=True)
class FaultAtWrite:
    """One of the writes of a run fails, or the process is killed around it."""

    number: int
    kind: Kind

    @property
    def part(self) -> str:
        """Kills and failures are counted apart."""
        return "kills at writes" if self.kind in KILLS else "failing writes"

    def inflict(self, trial: Trial) -> None:
        """Let it happen."""
        place, faults = trial.place, FaultyFiles(self.number, self.kind)
        done = run(place.scenario.command, place.folder, place.environment, faults.install)
        allowed = {-9, 0} if self.kind in KILLS else {0, 1}
        trial.look_at(done, allowed, "the faulty run")


@dataclass(frozen=True)
class DamagedFile:
    """A file of a finished study is cut short, or one of its bits is flipped.

    What is damaged is named and not used, or not needed; `repair` mends it.
    """

    kind: str
    how: str
    number: int
    paths: tuple[Path, ...] = field(repr=False)
    part: ClassVar[str] = "damaged"

    def inflict(self, trial: Trial) -> None:
        """Let it happen to one of these paths."""
        path = trial.rng.choice(self.paths)
        take_over(trial.whole.place, trial.place)
        trial.damage(trial.place.folder / path, self.how)
        done = trial.place.run()
        trial.look_at(done, {0, 2}, f"the run on a damaged {path}")
        if done.code and str(path.parent) not in done.errors:
            trial.find(f"does not name the damaged {path}", done)
        trial.look_at(trial.place.run("repair", "-c", "study.yaml"), {0}, "repair")


@dataclass(frozen=True)
class DamagedState:
    """A run is paused, and a file of its state is damaged: it goes on from another."""

    how: str
    number: int
    part: ClassVar[str] = "damaged states"

    def inflict(self, trial: Trial) -> None:
        """Let it happen."""
        place = trial.place
        seconds = max(1, round(trial.rng.uniform(0.3, 0.9) * trial.whole.seconds))
        command = (*place.scenario.command, "--save-every", "0s", "--stop-after", f"{seconds}s")
        trial.look_at(place.run(*command), {0, 130}, "the run that was paused")
        if kept := sorted(p for p in place.results.glob("unfinished/*/*") if p.is_file()):
            trial.damage(trial.rng.choice(kept), self.how)


@dataclass(frozen=True)
class FullDisk:
    """Results on a file system of so many KiB, really full; then it grows."""

    size: int
    part: ClassVar[str] = "full disks"

    def inflict(self, trial: Trial) -> None:
        """Let it happen."""
        place = trial.place
        results = place.folder / "results"
        mount(results, self.size)
        try:
            trial.look_at(place.run(), {0, 1}, "the run on a full disk")
            mount(results, 4 * 1024**2, "remount,")
            trial.look_at(place.run(), {0}, "the run after it grew")
            shutil.copytree(results, place.folder / "kept")
        finally:
            unmount(results)
        results.rmdir()
        (place.folder / "kept").rename(results)


@dataclass(frozen=True)
class JumpingClock:
    """Two processes at once, one of which has a clock that jumps by days."""

    number: int
    part: ClassVar[str] = "jumping clocks"

    def inflict(self, trial: Trial) -> None:
        """Let it happen."""
        place = trial.place
        asked = place.scenario.command, place.folder, place.environment
        commands = [Command(*asked, let_the_clock_jump), Command(*asked)]
        for command in commands:
            trial.look_at(command.wait(), {0}, "one of two")


def faults_of(whole: Whole, disks: bool) -> Iterator[Fault]:
    """Every fault that a scenario meets in the campaign.

    Each write is killed before, within and after, and fails once, in one of the four ways.

    Args:
        whole: The scenario as it ends without any.
        disks: Whether small file systems may be mounted.
    """
    for number in range(KILLED_AT_RANDOM):
        yield KilledAtRandom(number)
    for number in range(whole.writes):
        for kind in (*KILLS, FAILURES[number % len(FAILURES)]):
            yield FaultAtWrite(number, kind)
    for name, paths in files_by_kind(whole).items():
        for number in range(DAMAGED):
            yield DamagedFile(name, "cut", number, paths)
            yield DamagedFile(name, "flip", number, paths)
    for number in range(PAUSED_AND_DAMAGED):
        yield DamagedState("cut", number)
        yield DamagedState("flip", number)
    for size in DISKS if disks else ():
        yield FullDisk(size)
    for number in range(CLOCKS):
        yield JumpingClock(number)


def files_by_kind(whole: Whole) -> dict[str, tuple[Path, ...]]:
    """What a finished scenario leaves and reads again, by where it stands and its name."""
    kinds: dict[str, tuple[Path, ...]] = {}
    folder = whole.place.folder
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        needed = set(whole.scenario.not_asked_for).isdisjoint(below.parts)
        if needed and path.is_file() and path.suffix in {".json", ".safetensors"}:
            # results/study/runs/swa/seed-0/record.json is a file of runs called record.json.
            kind = f"{below.parts[min(2, len(below.parts) - 2)]}/{path.name}"
            kinds[kind] = (*kinds.get(kind, ()), below)
    return kinds


def mount(folder: Path, size: int, how: str = "") -> bool:
    """Put a file system of so many KiB there; whether that is allowed."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"{how}size={size}k", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def unmount(folder: Path) -> None:
    """Take it away again."""
    subprocess.run(["umount", folder], check=True)
