"""Keeps the state of a group of runs while it trains, and pauses it when that is wished."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from swabench.records.unfinished import Unfinished, Worker
from swabench.system.errors import InputError
from swabench.system.files import host
from swabench.system.pausing import SAVE_EVERY, Interrupted, Pause
from swabench.system.progress import Progress
from swabench.training.state import State, as_arrays, as_tensors

VERSION = 1
"""Raised when what a state holds changes, so that none is taken for what it is not."""

_TOLD_EVERY = 5.0
"""Seconds between notes of how far a group is."""


class GroupCheckpoints:
    """The checkpoints of one group of runs, for `training`.

    Args:
        place: Where they are kept.
        runs: Identities of the group's runs, by name.
        seed: Their seed.
        epochs: How many epochs they take.
        provenance: Digests of what they are made from.
        environment: What they are made with.
        pause: Says when to pause.
        save_every: Seconds from one kept state to the next, at least.
        progress: Takes lines for the user.
        count_before: Called with the number of epochs that were done before.
        clock: Tells seconds that never go back.
        work_clock: Tells those that go into the group, where it shares them with others.
    """

    def __init__(
        self,
        place: Unfinished,
        runs: Mapping[str, str],
        seed: int,
        epochs: int,
        *,
        provenance: Mapping[str, Any],
        environment: Mapping[str, Any],
        pause: Pause,
        save_every: float = SAVE_EVERY,
        progress: Progress,
        count_before: Callable[[int], None] = lambda epochs: None,
        clock: Callable[[], float] = time.monotonic,
        work_clock: Callable[[], float] | None = None,
    ) -> None:
        self._place = place
        self._facts: dict[str, Any] = {
            "version": VERSION,
            "runs": dict(runs),
            "seed": seed,
            "provenance": dict(provenance),
            "environment": dict(environment),
        }
        self._pause = pause
        self._save_every = save_every
        self._progress = progress
        self._count_before = count_before
        self._clock = clock
        self._taken_up_at = self._kept_at = self._told_at = clock()
        self._work_clock = work_clock or clock
        self._began = self._work_clock()
        self._seconds_before = 0.0
        self._worker = Worker(
            runs=dict(runs),
            seed=seed,
            epochs=epochs,
            epoch=0,
            kept=None,
            host=host(),
            process=os.getpid(),
            since=round(time.time(), 1),
        )

    @property
    def seconds(self) -> float:
        """Time that went into the group, before interruptions too."""
        return self._seconds_before + self._work_clock() - self._began

    def load(self) -> State | None:
        """The state to go on from; None where training starts afresh.

        Raises:
            InputError: There is one, made from or with something else than what is at hand.
        """
        found = self._place.load(self._progress.warn)
        if found:
            state, facts = found
            self._check(facts)
            self._seconds_before = facts["seconds"]
            self._worker = replace(self._worker, epoch=state["epoch"], kept=state["epoch"])
            self._progress.say(f"{self._what} goes on after {self._epochs(state['epoch'])}")
            self._count_before(state["epoch"])
        self._tell()
        return as_tensors(found[0]) if found else None

    def pause_if_asked(self, state: Callable[[], State]) -> None:
        """Keep the state and stop, where a pause is wished.

        Raises:
            Interrupted: It is.
        """
        if not (wish := self._pause.wished):
            return
        kept = "are done" if self._keep(state()) else "were done, and could not be kept"
        done = self._epochs(self._worker.epoch)
        why = f"{wish} ({done} of {self._what} {kept})"
        raise Interrupted(why, wish.exit_code, at_safe_point=True)

    def keep_if_due(self, state: Callable[[], State]) -> None:
        """Keep the state where the last is old enough; note how far the group is."""
        self._worker = replace(self._worker, epoch=self._worker.epoch + 1)
        now = self._clock()
        if now - self._kept_at >= self._save_every:
            self._keep(state())
        elif now - self._told_at >= _TOLD_EVERY:
            self._tell()

    def keep(self, state: Callable[[], State]) -> None:
        """Keep the state now."""
        self._keep(state())

    def done(self) -> None:
        """Let go of all that was kept: the runs have their records."""
        self._place.drop()
        self._progress.tell_done(self._what, self._clock() - self._taken_up_at)

    @property
    def _what(self) -> str:
        names = list(self._worker.runs)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return f"{names[0]}{more} at seed {self._worker.seed}"

    def _epochs(self, done: int) -> str:
        return f"{done} of {self._worker.epochs} epochs"

    def _keep(self, state: State) -> bool:
        """Write the state; where that cannot be, training goes on without."""
        try:
            self._place.keep(as_arrays(state), {**self._facts, "seconds": round(self.seconds, 3)})
            self._worker = replace(self._worker, kept=self._worker.epoch)
        except OSError as error:
            self._progress.warn(f"{error.filename}: the state is not kept ({error.strerror})")
            return False
        finally:
            self._kept_at = self._clock()
        self._tell()
        return True

    def _tell(self) -> None:
        """Note how far the group is, for others to see; nothing is lost where that fails."""
        self._told_at = self._clock()
        with suppress(OSError):
            self._place.write_worker(self._worker)

    def _check(self, facts: Mapping[str, Any]) -> None:
        """Compare what a state was made from and with to what is at hand.

        Raises:
            InputError: They differ in what makes other results; in what makes other last digits,
                a line says so.
        """
        remedy = f"go on there, or delete {self._place.folder} to begin anew"
        for key in ("version", "runs", "seed", "provenance"):
            if facts.get(key) != self._facts[key]:
                raise InputError(
                    f"{self._place.folder}: a state of {self._what} of another {key} than what is "
                    f"at hand; {remedy}"
                )
        then, now = facts["environment"], self._facts["environment"]
        if then["device"] != now["device"]:
            raise InputError(
                f"{self._place.folder}: {self._what} was begun on {then['device']}, and this is "
                f"{now['device']}; {remedy}"
            )
        others = [
            f"{key} {then.get(key)} (now {now.get(key)})"
            for key in ("device_name", "threads", "torch", "swabench", "commit")
            if then.get(key) != now.get(key)
        ]
        if others:
            self._progress.warn(
                f"{self._what} was begun with {', '.join(others)}: its last digits may not be "
                "those of a run without interruption"
            )
