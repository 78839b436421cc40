"""What is written for people, from records alone: table, figures, claims, report, manifest.

`analysis/` makes the contents, `records/` knows where files lie; here the two meet. Every
method writes one kind of document and returns what a command would show of it.
"""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from swabench.analysis import claims_text, table
from swabench.analysis.claims import Claim, decide_claims, pairs_compared
from swabench.analysis.figures import FORMATS, Picture, draw
from swabench.analysis.flatness import Flatness, flatness_frame, measure_flatness
from swabench.analysis.frame import Records, collect, incompleteness, missing_runs
from swabench.analysis.manifest import manifest
from swabench.analysis.predictions import PredictionTables, tables_of_predictions
from swabench.analysis.report import render_report
from swabench.analysis.surveys import surveys, tables_by_seed, tables_over_seeds
from swabench.analysis.words import other_seeds
from swabench.records import LandscapeRecord, RecordStore
from swabench.study.study import Study


@dataclass(frozen=True)
class Published:
    """What a command shows of a document.

    Attributes:
        files: Names of the files written.
        title: What the table is of.
        shown: A table to print, where there is one.
        notes: Lines to print.
        lacking: What is missing, in a line; empty where nothing is.
        content: The same for programs: numbers, strings, lists and mappings alone.
    """

    files: Sequence[str]
    title: str = ""
    shown: pd.DataFrame | None = None
    notes: Sequence[str] = ()
    lacking: str = ""
    content: Mapping[str, Any] = field(default_factory=dict)


def write_picture(store: RecordStore, picture: Picture) -> list[str]:
    """Write a picture in every format, and remove what it has no longer; returns the files."""
    files = []
    for kind in FORMATS:
        name = f"{picture.name}.{kind}"
        if kind in picture.content:
            files.append(store.write_figure(name, picture.content[kind]))
        else:
            store.remove_figure(name)
    return files


class Publication:
    """The documents of one study, from what is recorded when it is first asked for.

    Args:
        study: The study.
        store: Its records.
        seeds: Which seeds; every document names the runs that are missing at any of them.
    """

    def __init__(self, study: Study, store: RecordStore, seeds: list[int]) -> None:
        self._study = study
        self._store = store
        self._seeds = seeds

    def table(self) -> Published:
        """Write the comparison (CSV, Markdown, LaTeX), all that was measured, and the manifest."""
        study, rows = self._study, self._rows
        frame, ensembles = table.comparison(study, rows), table.ensembles(study, rows)
        trajectories = table.on_one_trajectory(study, self._records)
        shown = table.presentable(frame, study)
        undecided = table.not_distinguished(study, rows)
        lost = table.divergences(study, self._records)
        notes = [*other_seeds(study, self._seeds), *lost, *undecided]
        lacking = self._lacking(rows)
        written = {
            "table.csv": table.as_csv(frame),
            "table.md": table.as_markdown(study, shown, trajectories, ensembles, lacking, notes),
            "table.tex": table.as_latex(study, shown, lacking),
            "trajectories.csv": table.as_csv(trajectories),
            "ensemble.csv": table.as_csv(ensembles),
            "metrics.csv": table.as_csv(self._records.frame, table.DIGITS),
        }
        self._store.remove_texts("sources.*")  # of when its seeds took turns
        for name, text in written.items():
            self._store.write_text(name, text)
        files = [*written, *self.landscape().files]
        content = {
            **self._heading(rows),
            "reference": study.reference,
            "confidence": study.confidence,
            "table": frame.to_dict(orient="records"),
            "trajectories": trajectories.to_dict(orient="records"),
            "ensembles": ensembles.to_dict(orient="records"),
            "not_distinguished": undecided,
        }
        return Published(files, study.title, shown, notes, lacking, content)

    def landscape(self) -> Published:
        """Write what was measured around the weights (CSV), and the manifest, which lists it."""
        records = self._surveys
        tables = {f"landscape-{n}.csv": t for n, t in tables_over_seeds(records).items()}
        if records:
            tables["flatness.csv"] = flatness_frame(self._flatness)
        self._store.remove_texts("landscape-*.csv")
        self._store.remove_texts("flatness.csv")
        for name, frame in tables.items():
            self._store.write_text(name, table.as_csv(frame, table.DIGITS))
        self._store.write_text("manifest.json", self._manifest())
        return Published([*tables, "manifest.json"])

    def figures(self) -> Published:
        """Draw every figure whose records are there (PNG and SVG)."""
        files, notes, lacking = list[str](), [], dict[str, None]()
        for picture in self._pictures:
            files += write_picture(self._store, picture)
            if picture.skipped:
                notes.append(f"{picture.name}: not drawn: {picture.skipped}")
            if picture.lacking:
                lacking[picture.lacking] = None
        return Published(files, notes=notes, lacking=" ".join(lacking))

    def claims(self) -> Published:
        """Decide the paper's claims and write them (Markdown, CSV).

        Beside them goes what was computed from predictions, so that every number of theirs
        follows from published files.
        """
        decided, study, predictions = self._claims, self._study, self._predictions
        written = {
            "claims.md": claims_text.claims_markdown(decided, study),
            "claims.csv": table.as_csv(claims_text.evidence_frame(decided, study), table.DIGITS),
            "predictions.csv": table.as_csv(predictions.numbers_frame(), table.DIGITS),
            "mcnemar.csv": table.as_csv(predictions.mcnemar_frame()),
            "pairs.csv": table.as_csv(predictions.pairs_frame(), table.DIGITS),
        }
        for name, text in written.items():
            self._store.write_text(name, text)
        shown = claims_text.verdicts(decided, study)
        return Published(
            list(written),
            "Claims",
            shown,
            lacking=self._lacking(self._records),
            content={
                **self._heading(self._records),
                "claims": claims_text.for_programs(decided, study),
            },
        )

    def report(self) -> Published:
        """Write the one page that holds all of it."""
        page = render_report(self._study, self._records, self._seeds, self._claims, self._pictures)
        self._store.write_text("report.html", page)
        return Published(["report.html"], lacking=self._lacking(self._records))

    @cached_property
    def _pictures(self) -> list[Picture]:
        return draw(self._study, self._store, self._seeds, self._records, self._surveys)

    @cached_property
    def _records(self) -> Records:
        """Records of every run, the rate sweep's too."""
        found = collect(self._study, self._store, self._seeds, self._study.run_names)
        # Holm's correction by statsmodels collects garbage at every call: what lives on anyhow
        # need not be looked through each time.
        gc.collect()
        gc.freeze()
        return found

    @cached_property
    def _surveys(self) -> list[LandscapeRecord]:
        return surveys(self._study, self._store, self._seeds, self._records)

    @cached_property
    def _flatness(self) -> Flatness:
        return measure_flatness(tables_by_seed(self._surveys))

    @property
    def _rows(self) -> Records:
        return self._records.of(self._study.row_names)

    @cached_property
    def _claims(self) -> list[Claim]:
        return decide_claims(
            self._study, self._records, self._seeds, self._flatness, self._predictions
        )

    @cached_property
    def _predictions(self) -> PredictionTables:
        study = self._study
        ensembles = dict.fromkeys((study.claims.swa, study.claims.swa_cyclical))
        return tables_of_predictions(
            self._records,
            self._seeds,
            pairs=pairs_compared(study),
            ensembles=[name for name in ensembles if name in self._records],
            rows=study.row_names,
        )

    def _manifest(self) -> str:
        return manifest(self._study, self._records, self._surveys, self._seeds)

    def _heading(self, records: Records) -> dict[str, Any]:
        """Of which study, on which seeds, and what is missing."""
        return {
            "study": self._study.name,
            "title": self._study.title,
            "seeds": self._seeds,
            "missing": missing_runs(records, self._seeds),
            "diverged": self._records.diverged,
        }

    def _lacking(self, records: Records) -> str:
        return incompleteness(missing_runs(records, self._seeds))
