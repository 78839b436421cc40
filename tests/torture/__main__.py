"""The campaign: `python -m tests.torture` (all of it), `--share 0.05` for a part of each.

Every fault is followed by an undisturbed run, and what that leaves behind is compared with what a
run without any fault leaves: nothing may be lost, changed or left over, and nothing may end in a
traceback. The seed is printed; the same seed gives the same faults, though not the same moments.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import torch
import typer

from swabench.system.environment import commit
from tests.torture.commands import LONGEST, Command, Ended, run
from tests.torture.faults import FAILURES, KILLS, FaultyFiles, Kind, let_the_clock_jump
from tests.torture.scenarios import SCENARIOS, Place, Scenario, take_over, write_images

Fault = TypeVar("Fault")
KILLED_AT_RANDOM = 200
MOST_AT_ONCE = 4


class Campaign:
    """Carries out faults and counts what came of them.

    Args:
        folder: Where it works.
        seed: Of its random choices.
        share: Which share of the faults is tried.
        say: Takes lines.
        scenarios: What is disturbed.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        share: float,
        say: Callable[[str], None],
        scenarios: Sequence[Scenario] = SCENARIOS,
    ) -> None:
        self._scenarios = scenarios
        self._what = "before any fault"
        self._folder = folder
        self._rng = random.Random(seed)
        self._share = share
        self._say = say
        self._images = folder / "images"
        write_images(self._images)
        self.counts: dict[str, Counter[str]] = {}
        self.findings: list[str] = []
        self._expected: dict[str, dict[str, str]] = {}
        self._whole: dict[str, Place] = {}
        self._seconds: dict[str, float] = {}
        for scenario in scenarios:
            place = self._place("whole", scenario)
            done = place.run()
            if done.code:
                raise SystemExit(f"{scenario.name} fails without any fault:\n{done.errors}")
            self._whole[scenario.name] = place
            self._expected[scenario.name] = place.content()
            self._seconds[scenario.name] = done.seconds

    def kills_at_random_moments(self) -> None:
        """SIGKILL, in one of one, two or four processes on the same folders."""
        for number in self._some(range(KILLED_AT_RANDOM)):
            scenario = self._scenarios[number % len(self._scenarios)]
            together = self._rng.choice([1, 1, 2, MOST_AT_ONCE])
            moment = self._rng.uniform(0, 1.1 * self._seconds[scenario.name])
            with self._trial(f"kills, {scenario.name}", scenario, f"after {moment:.2f} s") as place:
                commands = [
                    Command(scenario.command, place.folder, place.environment)
                    for _ in range(together)
                ]
                time.sleep(moment)
                commands[0].kill()
                self._look_at(commands[0].wait(), {0, -9}, "the one that was killed")
                for command in commands[1:]:
                    self._look_at(command.wait(), {0}, "one that was not killed")

    def faults_at_every_write(self) -> None:
        """Each write of a run: the process is killed around it, or it fails."""
        for scenario in self._scenarios:
            writes = self.writes(scenario)
            faults = [(n, kind) for n in range(writes) for kind in (*KILLS, *FAILURES)]
            for number, kind in self._some(faults):
                self.fault_at_write(scenario, number, kind)

    def fault_at_write(self, scenario: Scenario, number: int, kind: Kind) -> None:
        """One of these."""
        part = "kills at writes" if kind in KILLS else "failing writes"
        what = f"{kind} at write {number}"
        with self._trial(f"{part}, {scenario.name}", scenario, what) as place:
            faults = FaultyFiles(number, kind)
            done = run(scenario.command, place.folder, place.environment, faults.install)
            allowed = {-9, 0} if kind in KILLS else {0, 1}
            self._look_at(done, allowed, "the faulty run")

    def damaged_files(self) -> None:
        """Each kind of file cut short at many places, and with many of its bits flipped.

        What is damaged is named and not used, or not needed; `repair` mends it.
        """
        for scenario in self._scenarios:
            whole = self._whole[scenario.name]
            kinds: dict[str, list[Path]] = {}
            for path in sorted(whole.folder.rglob("*")):
                needed = set(scenario.not_asked_for).isdisjoint(path.parts)
                if needed and path.is_file() and path.suffix in {".json", ".safetensors"}:
                    kinds.setdefault(f"{path.parent.parent.name}/{path.name}", []).append(path)
            faults = [(kind, how) for kind in kinds for how in ("cut", "flip") for _ in range(10)]
            for kind, how in self._some(faults):
                chosen = self._rng.choice(kinds[kind]).relative_to(whole.folder)
                with self._trial(f"damaged, {scenario.name}", scenario, f"{how} {chosen}") as place:
                    take_over(whole, place)
                    self._damage(place.folder / chosen, how)
                    done = place.run()
                    self._look_at(done, {0, 2}, "the run on a damaged file")
                    if done.code and str(chosen.parent) not in done.errors:
                        self._find("does not name the damaged file", done)
                    self._look_at(place.run("repair", "-c", "study.yaml"), {0}, "repair")

    def damaged_states(self) -> None:
        """A file of a run under way, cut short or with a flipped bit: it goes on from another."""
        for scenario in self._scenarios:
            for how in self._some(["cut", "flip"] * 10):
                with self._trial(f"damaged states, {scenario.name}", scenario, how) as place:
                    moment = self._rng.uniform(0.5, 0.9) * self._seconds[scenario.name]
                    command = (*scenario.command, "--save-every", "0s")
                    done = place.run(*command, "--stop-after", f"{max(1, round(moment))}s")
                    self._look_at(done, {0, 130}, "the run that was paused")
                    kept = sorted(place.results.glob("unfinished/*/*"))
                    if kept:
                        self._damage(self._rng.choice(kept), how)

    def small_disks(self) -> None:
        """Results on a file system that is really full, at several sizes; then it grows."""
        if not _mount(self._folder / "tried", 64):
            self._say("no right to mount a small file system: not tried")
            return
        _unmount(self._folder / "tried")
        for scenario in self._scenarios:
            for size in (64, 256, 1024, 65_536):
                what = f"{size} KiB"
                with self._trial(f"full disks, {scenario.name}", scenario, what) as place:
                    _mount(place.folder / "results", size)
                    try:
                        self._look_at(place.run(), {0, 1}, "the run on a full disk")
                        _mount(place.folder / "results", 4 * 1024**2, "remount,")
                        self._look_at(place.run(), {0}, "the run after it grew")
                        shutil.copytree(place.folder / "results", place.folder / "kept")
                    finally:
                        _unmount(place.folder / "results")
                    (place.folder / "results").rmdir()
                    (place.folder / "kept").rename(place.folder / "results")

    def jumping_clocks(self) -> None:
        """Two processes at once, one of which has a clock that jumps by days."""
        for scenario in self._scenarios:
            for _ in self._some(range(10)):
                with self._trial(f"jumping clocks, {scenario.name}", scenario, "a clock") as place:
                    asked = scenario.command, place.folder, place.environment
                    for command in (Command(*asked, let_the_clock_jump), Command(*asked)):
                        self._look_at(command.wait(), {0}, "one of two")

    def _damage(self, path: Path, how: str) -> None:
        content = bytearray(path.read_bytes())
        at = self._rng.randrange(len(content))
        if how == "cut":
            del content[at:]
        else:
            content[at] ^= 1 << self._rng.randrange(8)
        path.unlink()  # it is a link to the undamaged one
        path.write_bytes(content)

    def writes(self, scenario: Scenario) -> int:
        """How many writes a run of it makes."""
        place = self._place("counted", scenario)
        note = place.folder / "writes"
        faults = FaultyFiles(note=note)
        done = run(scenario.command, place.folder, place.environment, faults.install)
        self._look_at(done, {0}, "the run that counts writes")
        return note.stat().st_size

    @contextmanager
    def _trial(self, part: str, scenario: Scenario, what: str) -> Iterator[Place]:
        """One fault, and the undisturbed run after it."""
        counts = self.counts.setdefault(part, Counter())
        before = len(self.findings)
        self._what = f"{part}: {what}"
        place = self._place("trial", scenario)
        yield place
        self._look_at(place.run(), {0}, "the undisturbed run after it")
        expected, found = self._expected[scenario.name], place.content()
        if lost := expected.keys() - found.keys():
            self._find(f"lost {sorted(lost)[:3]}")
        changed = [n for n in expected.keys() & found.keys() if expected[n] != found[n]]
        if changed:
            self._find(f"changed {sorted(changed)[:3]}")
        if litter := place.litter():
            self._find(f"left behind {litter[:3]}")
        counts["tried"] += 1
        counts["found"] += len(self.findings) > before
        tried = sum(count["tried"] for count in self.counts.values())
        if tried % 20 == 0:
            self._say(f"{tried} faults, {len(self.findings)} findings; now {part}")

    def _look_at(self, ended: Ended, allowed: set[int], whose: str) -> None:
        if ended.seconds > LONGEST:
            self._find(f"{whose} hung", ended)
        elif ended.has_traceback:
            self._find(f"{whose} ended in a traceback", ended)
        elif ended.code not in allowed:
            self._find(f"{whose} ended with {ended.code}", ended)
        elif ended.code in {1, 2} and not ended.errors.strip():
            self._find(f"{whose} failed without a word", ended)

    def _find(self, finding: str, ended: Ended | None = None) -> None:
        said = f"\n{ended.errors.strip()[-800:]}" if ended else ""
        self.findings.append(f"{self._what}: {finding}{said}")
        self._say(f"FOUND {self.findings[-1]}")

    def _place(self, name: str, scenario: Scenario) -> Place:
        return Place(self._folder / f"{name}-{scenario.name}", scenario, self._images)

    def _some(self, faults: Sequence[Fault]) -> list[Fault]:
        number = max(1, round(self._share * len(faults)))
        return self._rng.sample(faults, number)


def _mount(folder: Path, size: int, how: str = "") -> bool:
    """Put a file system of so many KiB there; whether that is allowed."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"{how}size={size}k", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", folder], check=True)


def main(
    share: Annotated[float, typer.Option(help="Which share of the faults to try.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Of the random choices.")] = None,
    output: Annotated[Path | None, typer.Option(help="A JSON file for what came of it.")] = None,
) -> None:
    """Try faults, and compare what is left with a run without any."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    chosen = seed if seed is not None else random.SystemRandom().randrange(10**6)
    typer.echo(f"seed {chosen}; again: python -m tests.torture --seed {chosen} --share {share}")
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    began = time.monotonic()
    try:
        campaign = Campaign(folder, chosen, share, typer.echo)
        campaign.kills_at_random_moments()
        campaign.faults_at_every_write()
        campaign.damaged_files()
        campaign.damaged_states()
        campaign.small_disks()
        campaign.jumping_clocks()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result = {
        "commit": commit(),
        "seed": chosen,
        "share": share,
        "seconds": round(time.monotonic() - began),
        "parts": {part: dict(counts) for part, counts in campaign.counts.items()},
        "findings": campaign.findings,
    }
    text = json.dumps(result, indent=1)
    typer.echo(text)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n")
    sys.exit(bool(campaign.findings))


if __name__ == "__main__":
    typer.run(main)
