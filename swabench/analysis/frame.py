"""The only door from records to analysis: what was measured, collected, checked, as one frame."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from swabench.records import Record, RecordStore, agree, has_runs, tuned_study
from swabench.study.inputs import SplitName
from swabench.study.loading import bundled_studies, load_study
from swabench.study.seeds import in_spans
from swabench.study.study import Study
from swabench.system.errors import InputError
from swabench.training.measurement import Measurement, Predictor

COLUMNS = {
    "method": str,
    "seed": int,
    "epoch": int,
    "predictor": str,
    "split": str,
    "batchnorm": object,
    "accuracy": float,
    "loss": float,
}
"""Of the tidy frame: one row a measurement, accuracy in percent, loss in nats.

A run that diverged has its measurements from before, and a last one whose loss is infinite: a mean
over seeds that takes it in is infinite, too.
"""


class Records(Mapping[str, Mapping[int, Record]]):
    """The records of a study by run and seed, and what they measured as one tidy frame.

    Tables, figures, claims and the report take measurements from the frame; the records
    themselves are for provenance and for predictions. What diverged is told here, and nowhere
    else: a run that did so at any seed has no final measurements, for a mean over the seeds that
    survived would be one over the lucky.
    """

    def __init__(self, found: Mapping[str, Mapping[int, Record]]) -> None:
        self._found = found

    def __getitem__(self, name: str) -> Mapping[int, Record]:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def find(self, name: str, seed: int) -> Record | None:
        """A run's record; None where there is none."""
        return self._found.get(name, {}).get(seed)

    def all(self) -> list[Record]:
        """Every record, run by run."""
        return [record for found in self._found.values() for record in found.values()]

    def of(self, names: Iterable[str]) -> "Records":
        """Those of some runs."""
        return Records({name: self._found[name] for name in names})

    @cached_property
    def diverged(self) -> Mapping[str, Sequence[int]]:
        """The seeds at which runs diverged, of those that did at any."""
        found = {
            name: [seed for seed, record in of_seeds.items() if record.diverged]
            for name, of_seeds in self._found.items()
        }
        return {name: seeds for name, seeds in found.items() if seeds}

    def divergences(self, names: Iterable[str] | None = None) -> list[str]:
        """At how many of its seeds each run diverged that did, of some or of all, in words."""
        return [
            f"{name} diverged at {len(self.diverged[name])} of {len(self._found[name])} seeds"
            for name in (self if names is None else names)
            if name in self.diverged
        ]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Every measurement, one a row: columns as `COLUMNS`."""
        return measurements(self)

    def final(
        self,
        name: str,
        measure: str,
        predictor: Predictor | None = None,
        split: SplitName = "test",
    ) -> dict[int, float]:
        """A run's last measurement at every seed, by the table's treatment of BatchNorm.

        None of a run that diverged at any seed.

        Args:
            name: The run.
            measure: `accuracy` in percent, or `loss` in nats.
            predictor: Which predictor; by default the method's own result, which is its average
                where it has one.
            split: Which images.
        """
        if predictor is None:
            averages = (name, "average", split) in self._courses
            predictor = "average" if averages else "iterate"
        if name in self.diverged or (name, predictor, split) not in self._courses:
            return {}
        last = self._courses[name, predictor, split].drop_duplicates("seed", keep="last")
        return dict(zip(last["seed"].tolist(), last[measure].tolist(), strict=True))

    def course(
        self, name: str, measure: str, predictor: Predictor, split: SplitName = "test"
    ) -> pd.DataFrame:
        """A run's measurements over the epochs (rows), a column a seed; empty where none are.

        A seed at which the run diverged has nothing from that epoch on.
        """
        if (name, predictor, split) not in self._courses:
            return pd.DataFrame()
        found = self._courses[name, predictor, split]
        course = found.pivot_table(index="epoch", columns="seed", values=measure)
        lost = [seed for seed in self.diverged.get(name, ()) if seed not in course]
        return course.reindex(columns=[*course.columns, *lost])

    @cached_property
    def _courses(self) -> Mapping[tuple[Any, ...], pd.DataFrame]:
        """Measurements by run, predictor and split, in the order of the records."""
        finite = self.frame[np.isfinite(self.frame["loss"])]
        treated = finite[finite["batchnorm"] != "running"]
        return dict(iter(treated.groupby(["method", "predictor", "split"], sort=False)))


def load_folder(folder: Path, config: str | None, seeds: Sequence[int] | None) -> pd.DataFrame:
    """The tidy frame of a study's results folder; see `swabench.load`."""
    folder = folder.resolve()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a study's results, as results/mnist")
    if has_runs(folder):
        manifest = _manifest(folder)
        for study in _candidates(folder, config, manifest):
            known = sorted({*study.seeds, *manifest.get("seeds", [])})
            there = known if seeds is None else list(seeds)
            # A record's name does not depend on the study's, so the folder may be renamed.
            store = RecordStore.to_read(
                folder.parent, study.model_copy(update={"name": folder.name})
            )
            if (records := find_records(study, store, there, study.run_names)).all():
                return _from(records.frame, "records")
    frame = read_metrics(folder / "metrics.csv")
    chosen = frame if seeds is None else frame[frame["seed"].isin(seeds)]
    if chosen.empty:
        raise InputError(f"{folder}: metrics.csv has no measurements at the seeds asked for")
    return _from(chosen.reset_index(drop=True), "metrics.csv")


def read_metrics(path: Path) -> pd.DataFrame:
    """The tidy frame as `swabench table` wrote it.

    Raises:
        InputError: It is missing, cannot be read, or lacks a column.
    """
    if not path.is_file():
        raise InputError(
            f"{path.parent}: has neither records of runs nor metrics.csv; run "
            "`swabench reproduce`, or give config= if the study was changed since"
        )
    try:
        # An older file has no column batchnorm: it does not say which statistics were used.
        return tidy(pd.read_csv(path), optional=("batchnorm",))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run `swabench table` again") from None


def tidy(frame: pd.DataFrame, optional: Sequence[str] = ()) -> pd.DataFrame:
    """A frame with exactly the columns of `COLUMNS`, in their order and types.

    Raises:
        ValueError: A column is missing that is not optional, or holds something else.
    """
    if absent := [name for name in COLUMNS if name not in {*frame.columns, *optional}]:
        raise ValueError(f"it has no column {', '.join(absent)}")
    found = frame.reindex(columns=list(COLUMNS)).astype(COLUMNS)
    found["batchnorm"] = found["batchnorm"].where(found["batchnorm"].notna(), None)
    return found


def _from(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    frame.attrs["source"] = source
    return frame


def _manifest(folder: Path) -> dict[str, Any]:
    """The folder's manifest; empty where there is none, or none that can be read."""
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _candidates(folder: Path, config: str | None, manifest: Mapping[str, Any]) -> list[Study]:
    """Studies whose records the folder may hold, the likeliest first."""
    if config is not None:
        return [_as_run(load_study(config), folder)]
    found = []
    with suppress(ValidationError):  # no manifest, or of a version with other settings
        found.append(Study.model_validate(manifest.get("study")))
    if folder.name in bundled_studies():
        found.append(_as_run(load_study(folder.name), folder))
    return found


def _as_run(study: Study, folder: Path) -> Study:
    """With the settings that tuning chose for the folder's runs, where it did."""
    renamed = study.model_copy(update={"name": folder.name})
    return tuned_study(folder.parent, renamed) or study


def find_records(
    study: Study, store: RecordStore, seeds: Sequence[int], names: Sequence[str]
) -> Records:
    """The records that are there, by run and seed, checked to be of one kind; maybe none.

    Raises:
        InputError: They were made from different data or weights, or cannot be read.
    """
    found: dict[str, dict[int, Record]] = {}
    for name in names:
        there = ((seed, store.find(name, seed)) for seed in store.begun(name, seeds))
        found[name] = {seed: record for seed, record in there if record is not None}
    records = Records(found)
    _check_made_alike(study, records.all())
    return records


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
    found = find_records(study, store, seeds, study.row_names if names is None else names)
    if not found.all():
        raise InputError(
            f"{store.folder}: no records of study {study.name!r} with its current settings; "
            "run `swabench reproduce` first"
        )
    return found


def _check_made_alike(study: Study, records: Sequence[Record]) -> None:
    """Refuse records of different data or weights, and of different features within a seed.

    Seeds may differ in their features: another machine rounds otherwise, and pairs are of one
    seed. Where seeds draw the backbone, its weights are compared within each draw.
    """
    of_seed: dict[int, Record] = {}
    of_backbone: dict[int, Record] = {}
    for record in records:
        first = of_seed.setdefault(record.seed, record)
        same = of_backbone.setdefault(study.draws(record.seed).backbone, record)
        for other, parts in (
            (records[0], ("data",)),
            (same, ("data", "backbone")),
            (first, ("features",)),
        ):
            if not agree(record.provenance, other.provenance, parts):
                raise InputError(
                    f"{record.folder}: was made from different {' or '.join(parts)} than "
                    f"{other.folder}; delete the wrong one and run again"
                )


def missing_runs(records: Records, seeds: Sequence[int]) -> dict[str, list[int]]:
    """Seeds that a row lacks, for the rows that lack any."""
    lacking = {name: [s for s in seeds if s not in found] for name, found in records.items()}
    return {name: absent for name, absent in lacking.items() if absent}


def incompleteness(missing: Mapping[str, Sequence[int]]) -> str:
    """Which runs are missing, in one line; empty where none is."""
    if not missing:
        return ""
    parts = [f"{name} lacks seeds {in_spans(seeds)}" for name, seeds in missing.items()]
    return f"INCOMPLETE: {'; '.join(parts)}."


def measurements(records: Mapping[str, Mapping[int, Record]]) -> pd.DataFrame:
    """Every measurement of every run, one a row: columns as `COLUMNS`."""
    return tidy(
        pd.DataFrame(
            [
                {"method": name, "seed": seed, **vars(measurement)}
                for name, found in records.items()
                for seed, record in found.items()
                for measurement in _measured(record)
            ],
            columns=list(COLUMNS),
        )
    )


def _measured(record: Record) -> list[Measurement]:
    """What a run measured; where it diverged, with the loss that was not finite as infinite."""
    if not (lost := record.diverged):
        return [*record.history]
    return [
        *record.history,
        Measurement(lost.epoch, lost.predictor, lost.split, math.nan, math.inf),
    ]
