"""The only door from records to analysis: what was measured, collected, checked, as one frame."""

from collections.abc import Mapping, Sequence

import pandas as pd

from swabench.records import Record, RecordStore, agree
from swabench.study.study import Study
from swabench.system.errors import InputError

Records = Mapping[str, Mapping[int, Record]]


def collect(
    study: Study, store: RecordStore, seeds: Sequence[int], names: Sequence[str] | None = None
) -> Records:
    """All records of a study, by row and seed, checked to be of one kind.

    Args:
        study: The study.
        store: Its records.
        seeds: The seeds to look for.
        names: Which runs; by default the table's rows. `study.run_names` are all there are.

    Raises:
        InputError: There is none, or they were made from different data or weights.
    """
    found: dict[str, dict[int, Record]] = {}
    for name in study.row_names if names is None else names:
        records = ((seed, store.find(name, seed)) for seed in seeds)
        found[name] = {seed: record for seed, record in records if record is not None}
    every = [record for records in found.values() for record in records.values()]
    if not every:
        raise InputError(
            f"{store.folder}: holds no record of study {study.name!r} as it is now; "
            "run `swabench reproduce` first"
        )
    _check_made_alike(every)
    return found


def _check_made_alike(records: Sequence[Record]) -> None:
    """Refuse records of different data or weights, and of different features within a seed.

    Seeds may differ in their features: another machine rounds otherwise, and pairs are of one
    seed.
    """
    of_seed: dict[int, Record] = {}
    for record in records:
        first = of_seed.setdefault(record.seed, record)
        for other, parts in ((records[0], ("data", "backbone")), (first, ("features",))):
            if not agree(record.provenance, other.provenance, parts):
                raise InputError(
                    f"{record.folder}: was made from other {' or '.join(parts)} than "
                    f"{other.folder}; delete the one that is wrong and run again"
                )


def missing_runs(records: Records, seeds: Sequence[int]) -> dict[str, list[int]]:
    """Seeds that a row lacks, for the rows that lack any."""
    lacking = {name: [s for s in seeds if s not in found] for name, found in records.items()}
    return {name: absent for name, absent in lacking.items() if absent}


def incompleteness(missing: Mapping[str, Sequence[int]]) -> str:
    """What a table lacks, in one line; empty where it lacks nothing."""
    if not missing:
        return ""
    parts = [f"{name} lacks seeds {', '.join(map(str, seeds))}" for name, seeds in missing.items()]
    return f"INCOMPLETE: {'; '.join(parts)}."


def measurements(records: Records) -> pd.DataFrame:
    """Every measurement of every run, one a row: what the curves are drawn from."""
    return pd.DataFrame(
        [
            {
                "method": name,
                "seed": seed,
                "epoch": m.epoch,
                "predictor": m.predictor,
                "split": m.split,
                "batchnorm": m.batchnorm,
                "accuracy": m.accuracy,
                "loss": m.loss,
            }
            for name, found in records.items()
            for seed, record in found.items()
            for m in record.history
        ]
    )
