"""The campaign: `python -m tests.torture` (all of it), `--shard 1/20` for a twentieth.

Every fault is followed by an undisturbed run, and what that leaves behind is compared with what a
run without any fault leaves: nothing may be lost, changed or left over, and nothing may end in a
traceback. The same seed gives the same faults, though not the same moments; the shards of a seed
are the whole campaign, so that it can be carried out over several days.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from swabench.cli.parsing import parse_shard
from swabench.system.environment import commit
from swabench.system.errors import InputError
from tests.torture.campaign import Campaign
from tests.torture.scenarios import digest


def main(
    shard: Annotated[str, typer.Option(help="Which part of the faults to try.")] = "1/1",
    seed: Annotated[int, typer.Option(help="Draws the faults' random choices.")] = 0,
    jobs: Annotated[int, typer.Option(help="How many faults to try at once.")] = 1,
    output: Annotated[Path | None, typer.Option(help="A JSON file for what came of it.")] = None,
) -> None:
    """Try faults, and compare what is left with a run without any."""
    try:
        number, of = parse_shard(shard)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None
    kept = Kept(output, seed, of, digest())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing stays behind
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    began = time.monotonic()
    parts: dict[str, Counter[str]] = {}
    findings: list[str] = []
    done: dict[str, Any] = {"commit": commit(), "parts": parts, "findings": findings}
    with tempfile.TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as folder:
        campaign = Campaign(Path(folder), seed)
        mine = campaign.shard(number, of)
        typer.echo(f"seed {seed}, shard {shard}: {len(mine)} faults")
        for tried, (planned, found) in enumerate(campaign.try_all(mine, jobs), start=1):
            parts.setdefault(planned.part, Counter()).update(tried=1, found=int(bool(found)))
            for finding in found:
                findings.append(f"{planned}: {finding}")
                typer.echo(f"FOUND {findings[-1]}")
            done["seconds"] = round(time.monotonic() - began)
            done["left"] = len(mine) - tried
            kept.write(number, done)
            if tried % 20 == 0:
                typer.echo(f"{tried} tried, {len(findings)} findings, {done['seconds']} s")
    typer.echo(json.dumps(done, indent=1, sort_keys=True))
    sys.exit(bool(findings))


class Kept:
    """A file that holds what the shards of one campaign came to, and their sum.

    Args:
        path: Where; None keeps nothing.
        seed: Of the campaign.
        shards: How many shards it has.
        scenarios: Digest of what is disturbed.
    """

    def __init__(self, path: Path | None, seed: int, shards: int, scenarios: str) -> None:
        self._path = path
        self._campaign = {"seed": seed, "shards": shards, "scenarios": scenarios}
        self._done: dict[str, Any] = {}
        if path and path.exists():
            kept = json.loads(path.read_text())
            if {key: kept.get(key) for key in self._campaign} != self._campaign:
                raise typer.BadParameter(
                    f"--output: {path} holds another campaign, of {kept.get('shards')} shards "
                    f"with seed {kept.get('seed')}; go on with that, or move it away"
                )
            self._done = kept["done"]

    def write(self, number: int, done: dict[str, Any]) -> None:
        """Put down what one shard came to, in place of what it came to before."""
        self._done[str(number)] = done
        parts: dict[str, Counter[str]] = {}
        for each in self._done.values():
            for part, count in each["parts"].items():
                parts.setdefault(part, Counter()).update(count)
        whole = {
            **self._campaign,
            "parts": dict(sorted(parts.items())),
            "done": dict(sorted(self._done.items(), key=lambda shard: int(shard[0]))),
        }
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
