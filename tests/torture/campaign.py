"""Carries out faults, several at once if asked, and says what was found after each."""

import multiprocessing
import os
import random
import traceback
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.torture.faults import Fault, faults_of, mount, unmount
from tests.torture.scenarios import SCENARIOS, Place, Scenario, write_images
from tests.torture.trial import Trial, carry_out_whole


@dataclass(frozen=True)
class Planned:
    """A fault, and the name of the scenario that meets it."""

    scenario: str
    fault: Fault

    @property
    def part(self) -> str:
        """Which part of the campaign it belongs to."""
        return f"{self.fault.part}, {self.scenario}"

    def draw(self, seed: int) -> int:
        """A number that depends on the seed and on what it is, not on what else is planned."""
        return zlib.crc32(f"{seed} {self}".encode())

    def __str__(self) -> str:
        return f"{self.scenario}, {self.fault}"


class Campaign:
    """Faults for scenarios that have been carried out once without any.

    Args:
        folder: Where it works.
        seed: Of its random choices.
        scenarios: What is disturbed.
    """

    def __init__(self, folder: Path, seed: int, scenarios: Sequence[Scenario] = SCENARIOS) -> None:
        self._folder = folder
        self._seed = seed
        self._images = folder / "images"
        write_images(self._images)
        self.whole = {s.name: carry_out_whole(self._place("whole", s)) for s in scenarios}

    def faults(self) -> list[Planned]:
        """All that there are, in an order that the seed draws."""
        probe = self._folder / "mounted"
        if disks := mount(probe, 64):
            unmount(probe)
        found = [
            Planned(name, fault)
            for name, whole in self.whole.items()
            for fault in faults_of(whole, disks)
        ]
        return sorted(found, key=lambda planned: (planned.draw(self._seed), str(planned)))

    def shard(self, number: int, of: int) -> list[Planned]:
        """The faults of one of so many shards, counted from 1; each is in one of them."""
        return [p for p in self.faults() if p.draw(self._seed) % of == number - 1]

    def try_all(self, planned: Sequence[Planned], jobs: int) -> Iterator[tuple[Planned, list[str]]]:
        """Try these, so many at once; yields each with what was found wrong, in order."""
        forked = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(jobs, mp_context=forked) as workers:
            try:
                yield from zip(planned, workers.map(self.try_one, planned), strict=True)
            finally:
                workers.shutdown(cancel_futures=True)

    def try_one(self, planned: Planned) -> list[str]:
        """Try one, in a place of this process's own; what was found wrong."""
        whole = self.whole[planned.scenario]
        place = self._place(f"trial-{os.getpid()}", whole.scenario)
        rng = random.Random(f"{self._seed} {planned}")
        with Trial(whole, place, rng) as trial:
            try:
                planned.fault.inflict(trial)
                trial.look_at_what_is_left()
            except Exception:
                trial.find(f"the trial itself failed: {traceback.format_exc()}")
        return trial.findings

    def _place(self, name: str, scenario: Scenario) -> Place:
        return Place(self._folder / f"{name}-{scenario.name}", scenario, self._images)
