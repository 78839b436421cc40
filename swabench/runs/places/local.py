"""Here, in the process that was asked: nothing is handed out."""

from collections.abc import Sequence

from swabench.runs.places.base import Job, Written
from swabench.runs.units import Unit


class Local:
    """Leaves every unit to the process that asks."""

    def carry_out(self, job: Job, title: str, units: Sequence[Unit]) -> Written:
        """Nothing."""
        return {}

    def close(self) -> None:
        """Nothing."""
