"""One fault in a place of its own, the undisturbed run after it, and what was found wrong."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.torture.commands import Command, Ended, run
from tests.torture.faulty_files import FaultyFiles, Write, writes_in
from tests.torture.scenarios import Place, Scenario
from tests.torture.stand_ins import NOT_DRAWN


@dataclass(frozen=True)
class Whole:
    """A scenario as it ends without any fault.

    Attributes:
        place: Where it was carried out.
        content: Digests of what it left, by name.
        seconds: How long it ran.
        writes: What it wrote, in order.
    """

    place: Place
    content: dict[str, str]
    seconds: float
    writes: tuple[Write, ...]

    @property
    def scenario(self) -> Scenario:
        """What was carried out."""
        return self.place.scenario


def carry_out_whole(place: Place) -> Whole:
    """Carry out a scenario without any fault.

    Raises:
        RuntimeError: If it fails nevertheless.
    """
    note = place.folder / "writes"
    faults = FaultyFiles(note=note)
    done = run(place.scenario.command, place.folder, place.environment, faults.install)
    if done.code or place.litter():
        raise RuntimeError(f"{place.scenario.name} fails without any fault:\n{done.errors}")
    if any(path.read_bytes() != NOT_DRAWN for path in place.results.glob("figures/*")):
        raise RuntimeError(f"{place.scenario.name} draws pictures, which takes long")
    return Whole(place, place.content(), done.seconds, writes_in(note))


class Trial:
    """A place in which a fault happens, and what is found wrong there.

    Leaving it ends the commands that still run.

    Args:
        whole: What should be there in the end.
        place: Where the fault happens; empty yet.
        rng: What the fault chooses by.
    """

    def __init__(self, whole: Whole, place: Place, rng: random.Random) -> None:
        self.whole = whole
        self.place = place
        self.rng = rng
        self.findings: list[str] = []
        self._commands: list[Command] = []

    def __enter__(self) -> "Trial":
        return self

    def __exit__(self, *_: object) -> None:
        for command in self._commands:
            command.end()

    def start(self, prepare: Callable[[], None] = lambda: None) -> Command:
        """Start the scenario's command, with a fault put in place."""
        place = self.place
        command = Command(place.scenario.command, place.folder, place.environment, prepare)
        self._commands.append(command)
        return command

    def look_at(self, ended: Ended, allowed: Iterable[int], whose: str) -> None:
        """Note what is wrong with the end of a command; `allowed` are its exit codes."""
        if ended.hung:
            self.find(f"{whose} hung", ended)
        elif ended.has_traceback:
            self.find(f"{whose} ended in a traceback", ended)
        elif ended.code not in allowed:
            self.find(f"{whose} ended with {ended.code}", ended)
        elif ended.code in {1, 2} and not ended.errors.strip():
            self.find(f"{whose} failed without a word", ended)

    def look_at_what_is_left(self) -> None:
        """Run once more, undisturbed, and note what is lost, changed or left over after it."""
        self.look_at(self.start().wait(), {0}, "the undisturbed run after it")
        expected, found = self.whole.content, self.place.content()
        if lost := expected.keys() - found.keys():
            self.find(f"lost {sorted(lost)[:3]}")
        changed = [n for n in expected.keys() & found.keys() if expected[n] != found[n]]
        if changed:
            self.find(f"changed {sorted(changed)[:3]}")
        if litter := self.place.litter():
            self.find(f"left behind {litter[:3]}")

    def find(self, finding: str, ended: Ended | None = None) -> None:
        """Note something wrong, with what a command said."""
        said = f"\n{ended.errors.strip()[-800:]}" if ended else ""
        self.findings.append((finding + said).replace(f"{self.place.folder.parent}/", ""))

    def damage(self, path: Path, how: str) -> None:
        """Cut a file short at a random place (`cut`), or flip one of its bits (`flip`)."""
        content = bytearray(path.read_bytes())
        at = self.rng.randrange(len(content))
        if how == "cut":
            del content[at:]
        else:
            content[at] ^= 1 << self.rng.randrange(8)
        path.unlink()  # it may be a link to the undamaged one
        path.write_bytes(content)
