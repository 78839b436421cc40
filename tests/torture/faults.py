"""The faults: what happens to a scenario, and what it may do then. A new kind is a class here."""

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from tests.torture.faulty_files import (
    FAILURES,
    KILLS,
    WHOLE_OR_NOT,
    FaultyFiles,
    Kind,
    let_the_clock_jump,
)
from tests.torture.scenarios import take_over
from tests.torture.trial import Trial, Whole

# So many of each kind for a scenario, of the damaged files for each kind of file.
KILLED_AT_RANDOM = 100
DAMAGED = 20
PAUSED_AND_DAMAGED = 10
CLOCKS = 5
DISKS = (0.02, 0.2, 0.5, 0.8)
"""Sizes, as shares of what a scenario leaves."""


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
        longest = 1.1 * trial.whole.seconds * max(1, together / (os.cpu_count() or 1))
        commands = [trial.start() for _ in range(together)]
        time.sleep(trial.rng.uniform(0, longest))
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
        done = trial.start(FaultyFiles(self.number, self.kind).install).wait()
        allowed = {-9, 0} if self.kind in KILLS else {0, 1}
        trial.look_at(done, allowed, "the faulty run")


@dataclass(frozen=True)
class DamagedFile:
    """A file that a run reads is cut short, or one of its bits is flipped.

    What is damaged is named and not used, or not needed; `repair` mends it.

    Attributes:
        kind: Which kind of file, as `runs/record.json`.
        how: `cut` or `flip`.
        number: Tells those of a kind apart.
        paths: The files of that kind.
    """

    kind: str
    how: str
    number: int
    paths: tuple[Path, ...] = field(repr=False)
    part: ClassVar[str] = "damaged"

    def inflict(self, trial: Trial) -> None:
        """Let it happen to one of these paths."""
        path = trial.rng.choice(self.paths)
        # Who has all results reads nothing of the cache.
        folders = ["cache"] if path.parts[0] == "cache" else ["results", "cache"]
        take_over(trial.whole.place, trial.place, *folders)
        trial.damage(trial.place.folder / path, self.how)
        done = trial.start().wait()
        trial.look_at(done, {0, 2}, f"the run on a damaged {path}")
        if done.code and str(path.parent) not in done.errors:
            trial.find(f"does not name the damaged {path}", done)
        repaired = trial.place.run("repair", "-c", "study.yaml")
        trial.look_at(repaired, {0}, "repair")
        if done.code and path.parent.name not in repaired.out:
            trial.find(f"repair does not name the damaged {path}", repaired)


@dataclass(frozen=True)
class DamagedState:
    """A run is killed once a state is kept, and that state is damaged: it goes on from another.

    Attributes:
        how: `cut` or `flip`.
        number: Tells them apart.
        after: The writes at whose end a state is kept.
    """

    how: str
    number: int
    after: tuple[int, ...] = field(repr=False)
    part: ClassVar[str] = "damaged states"

    def inflict(self, trial: Trial) -> None:
        """Let it happen."""
        faults = FaultyFiles(trial.rng.choice(self.after), "kill after")
        trial.look_at(trial.start(faults.install).wait(), {-9}, "the run that was killed")
        kept = sorted(p for p in trial.place.results.glob("unfinished/*/*") if p.stat().st_size)
        trial.damage(trial.rng.choice(kept), self.how)


@dataclass(frozen=True)
class FullDisk:
    """Results on a file system that has room for a share of them, really full; then it grows."""

    share: float
    part: ClassVar[str] = "full disks"

    def inflict(self, trial: Trial) -> None:
        """Let it happen."""
        left = (trial.whole.place.folder / "results").rglob("*")
        size = sum(path.stat().st_size for path in left if path.is_file()) / 1024
        results = trial.place.folder / "results"
        if not mount(results, max(8, int(self.share * size))):
            trial.find("no small file system could be mounted")
            return
        try:
            trial.look_at(trial.start().wait(), {0, 1}, "the run on a full disk")
            mount(results, 4 * 1024**2, "remount,")
            trial.look_at(trial.start().wait(), {0}, "the run after it grew")
            shutil.copytree(results, trial.place.folder / "kept")
        finally:
            unmount(results)
        results.rmdir()
        (trial.place.folder / "kept").rename(results)


@dataclass(frozen=True)
class JumpingClock:
    """Two processes at once, one of which has a clock that jumps by days."""

    number: int
    part: ClassVar[str] = "jumping clocks"

    def inflict(self, trial: Trial) -> None:
        """Let it happen."""
        for command in (trial.start(let_the_clock_jump), trial.start()):
            trial.look_at(command.wait(), {0}, "one of two")


def faults_of(whole: Whole, disks: bool) -> Iterator[Fault]:
    """Every fault that a scenario meets in the campaign.

    At each write the process is killed before, within and after it, and it fails once, in one of
    the four ways.

    Args:
        whole: The scenario as it ends without any.
        disks: Whether small file systems may be mounted.
    """
    for number in range(KILLED_AT_RANDOM):
        yield KilledAtRandom(number)
    # Content and renames alternate: each has turns of its own.
    renames = itertools.cycle(kind for kind in FAILURES if kind in WHOLE_OR_NOT)
    contents = itertools.cycle(FAILURES)
    for number, write in enumerate(whole.writes):
        for kind in KILLS:
            if kind in WHOLE_OR_NOT or not write.is_rename:
                yield FaultAtWrite(number, kind)
        yield FaultAtWrite(number, next(renames if write.is_rename else contents))
    for name, paths in files_by_kind(whole).items():
        for number in range(DAMAGED):
            yield DamagedFile(name, "cut", number, paths)
            yield DamagedFile(name, "flip", number, paths)
    states = tuple(
        number
        for number, write in enumerate(whole.writes)
        if write.is_rename and "unfinished" in write.path.parts
    )
    for number in range(PAUSED_AND_DAMAGED):
        yield DamagedState("cut", number, states)
        yield DamagedState("flip", number, states)
    for share in DISKS if disks else ():
        yield FullDisk(share)
    for number in range(CLOCKS):
        yield JumpingClock(number)


def files_by_kind(whole: Whole) -> dict[str, tuple[Path, ...]]:
    """What a finished scenario leaves and reads again, by its room and its name.

    What is named by a digest or a seed is of one kind with its like.
    """
    kinds: dict[str, tuple[Path, ...]] = {}
    folder = whole.place.folder
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        room = next((r for r in ("runs", "landscape", "features") if r in below.parts[:-1]), None)
        needed = set(whole.scenario.not_asked_for).isdisjoint(below.parts)
        if room and needed and path.suffix in {".json", ".safetensors"}:
            name = f"*{path.suffix}" if room == "landscape" else path.name
            kinds[f"{room}/{name}"] = (*kinds.get(f"{room}/{name}", ()), below)
    return kinds


def mount(folder: Path, size: int, how: str = "") -> bool:
    """Put a file system of so many KiB there; whether that is allowed."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"{how}size={size}k", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def unmount(folder: Path) -> None:
    """Take it away again, as soon as nobody uses it."""
    subprocess.run(["umount", "--lazy", folder], check=True)
