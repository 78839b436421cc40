"""Numbers of a benchmark, in a file that is whole after each of them."""

import json
from pathlib import Path

import torch
from rich.console import Console

from swabench.system.environment import environment


class Notes:
    """What was measured, with what it was measured on.

    Args:
        output: The file, in JSON.
        device: Where the work is done.
    """

    def __init__(self, output: Path, device: torch.device) -> None:
        self.measured: dict[str, float] = {}
        self._output = output
        self._console = Console()
        self._environment = environment(device)
        output.parent.mkdir(parents=True, exist_ok=True)

    def note(self, name: str, value: float) -> float:
        """Print a number, and write it beside those before it."""
        self.measured[name] = value
        shown = f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
        self._console.print(f"{name}: {shown}", highlight=False, soft_wrap=True)
        content = {"measured": self.measured, "environment": self._environment}
        self._output.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return value
