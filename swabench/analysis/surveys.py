"""The landscape's records of a study, put together over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from swabench.analysis.frame import Records
from swabench.records import LandscapeRecord, RecordStore
from swabench.study.landscape import PARTS, Part
from swabench.study.study import Study


@dataclass(frozen=True)
class Gathered:
    """One part of the landscape over seeds.

    Attributes:
        tables: What was measured, by name, with a column `seed`.
        seeds: The seeds that are there.
        missing: The seeds that should be there and are not.
    """

    tables: Mapping[str, pd.DataFrame]
    seeds: list[int]
    missing: list[int]


def gather(
    study: Study, found: Sequence[LandscapeRecord], part: Part, seeds: Sequence[int]
) -> Gathered | None:
    """One part of the landscape over those of `seeds` that it looks at; None if none is there."""
    wanted = study.landscape_seeds(part, seeds)
    records = [record for record in found if record.part == part]
    if not records:
        return None
    tables = {
        name: pd.concat(
            [record.tables[name].assign(seed=record.seed) for record in records], ignore_index=True
        )
        for name in records[0].tables
    }
    there = [record.seed for record in records]
    return Gathered(tables, there, [seed for seed in wanted if seed not in there])


def surveys(
    study: Study, store: RecordStore, seeds: Sequence[int], records: Records | None = None
) -> list[LandscapeRecord]:
    """All records of the landscape that are there, part by part.

    Args:
        study: The study.
        store: Its records.
        seeds: At which seeds.
        records: Those of all its runs, where they were read before.
    """
    find = records.find if records else store.find
    found = (
        store.find_landscape(part, seed, find)
        for part in PARTS
        for seed in study.landscape_seeds(part, seeds)
    )
    return [record for record in found if record is not None]


def tables_by_seed(records: Sequence[LandscapeRecord]) -> dict[int, dict[str, pd.DataFrame]]:
    """The tables of the landscape by seed and name; seeds without any are left out."""
    found: dict[int, dict[str, pd.DataFrame]] = {}
    for record in records:
        found.setdefault(record.seed, {}).update(record.tables)
    return found


def tables_over_seeds(records: Sequence[LandscapeRecord]) -> dict[str, pd.DataFrame]:
    """The tables of the landscape by name, with a column `seed` in front."""
    found: dict[str, list[pd.DataFrame]] = {}
    for record in records:
        for name, frame in record.tables.items():
            with_seed = frame.copy()
            with_seed.insert(0, "seed", record.seed)
            found.setdefault(name, []).append(with_seed)
    return {name: pd.concat(frames, ignore_index=True) for name, frames in found.items()}
