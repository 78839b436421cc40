"""The campaign: `python -m tests.torture` (all of it), `--shard 1/20` for every twentieth fault.

Every fault is followed by an undisturbed run, and what that leaves behind is compared with what a
run without any fault leaves: nothing may be lost, changed or left over, and nothing may end in a
traceback. The same seed gives the same faults, though not the same moments; the shards of a seed
are the whole campaign, so that it can be carried out over several days.
"""

import json
import os
import random
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
from tests.torture.campaign import Campaign


def main(
    shard: Annotated[str, typer.Option(help="Which part of the faults to try.")] = "1/1",
    seed: Annotated[int, typer.Option(help="Of the random choices.")] = 0,
    jobs: Annotated[int, typer.Option(help="How many faults to try at once.")] = 1,
    output: Annotated[Path | None, typer.Option(help="A JSON file for what came of it.")] = None,
) -> None:
    """Try faults, and compare what is left with a run without any."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    number, of = parse_shard(shard)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        campaign = Campaign(Path(folder), seed)
        faults = campaign.faults()
        random.Random(seed).shuffle(faults)
        mine = faults[number - 1 :: of]
        typer.echo(f"seed {seed}, shard {shard}: {len(mine)} of {len(faults)} faults")
        parts: dict[str, Counter[str]] = {}
        findings: list[str] = []
        for tried, (fault, found) in enumerate(campaign.try_all(mine, jobs), 1):
            count = parts.setdefault(f"{fault.part}, {fault.scenario}", Counter(tried=0, found=0))
            count.update(tried=1, found=bool(found))
            for finding in found:
                findings.append(f"{fault}: {finding}")
                typer.echo(f"FOUND {findings[-1]}")
            if tried % 20 == 0:
                seconds = time.monotonic() - began
                typer.echo(f"{tried} of {len(mine)}, {len(findings)} findings, {seconds:.0f} s")
    done = {
        "commit": commit(),
        "seconds": round(time.monotonic() - began),
        "parts": {part: dict(parts[part]) for part in sorted(parts)},
        "findings": findings,
    }
    typer.echo(json.dumps(done, indent=1))
    if output:
        keep(output, seed, number, of, done)
    sys.exit(bool(findings))


def keep(path: Path, seed: int, number: int, of: int, done: dict[str, Any]) -> None:
    """Write what a shard came to beside the others of its campaign, and the sum of all."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    others = kept["shards"] if (kept.get("seed"), kept.get("of")) == (seed, of) else {}
    shards = {**others, str(number): done}
    parts: dict[str, Counter[str]] = {}
    for each in shards.values():
        for part, count in each["parts"].items():
            parts.setdefault(part, Counter()).update(count)
    whole = {
        "seed": seed,
        "of": of,
        "done": len(shards),
        "parts": {part: dict(parts[part]) for part in sorted(parts)},
        "shards": {key: shards[key] for key in sorted(shards, key=int)},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
