"""The documents of a study that varies one source of chance at a time.

Its seeds are not alike, so it has neither a comparison nor claims: it has the sources' deviations
in their place.
"""

from functools import cached_property

import pandas as pd

from swabench.analysis import table
from swabench.analysis import variance as sources
from swabench.analysis.publish import Publication, Published
from swabench.analysis.report import render_sources_report

# Written when the same study still compared methods.
_OF_A_COMPARISON = (
    "table.*",
    "trajectories.csv",
    "ensemble.csv",
    "claims.*",
    "predictions.csv",
    "mcnemar.csv",
    "pairs.csv",
)


class SourcesPublication(Publication):
    """As `Publication`, whose other documents are made alike."""

    def table(self) -> Published:
        """Write the sources (CSV, Markdown), all that was measured, and the manifest."""
        study, lacking = self._study, self._lacking(self._rows)
        lost = sources.divergences(self._records)
        for pattern in _OF_A_COMPARISON:
            self._store.remove_texts(pattern)
        written = {
            "sources.csv": table.as_csv(self._frame, "%.6g"),  # deviations of losses are small
            "sources.md": sources.as_markdown(study, self._frame, lacking, lost),
            "metrics.csv": table.as_csv(self._records.frame, table.DIGITS),
        }
        for name, text in written.items():
            self._store.write_text(name, text)
        files = [*written, *self.landscape().files]
        lines = [
            study.draws_in_words,
            *lost,
            *sources.findings(self._frame, study),
            f"no comparison of methods: {sources.INSTEAD}",
        ]
        content = {
            **self._heading(self._rows),
            "reference": study.reference,
            "confidence": study.confidence,
            "seed_draws": list(study.seed_draws),
            "sources": self._frame.to_dict(orient="records"),
        }
        shown = sources.presentable(self._frame, study, "accuracy")
        return Published(files, study.title, shown, lines, lacking, content)

    def claims(self) -> Published:
        """Say why none are decided."""
        line = f"claims: not decided: {sources.INSTEAD}"
        content = {**self._heading(self._records), "claims": [], "note": line}
        return Published([], notes=[line], lacking=self._lacking(self._records), content=content)

    def report(self) -> Published:
        """Write the one page that holds all of it."""
        page = render_sources_report(
            self._study, self._records, self._seeds, self._frame, self._pictures
        )
        self._store.write_text("report.html", page)
        return Published(["report.html"], lacking=self._lacking(self._records))

    @cached_property
    def _frame(self) -> pd.DataFrame:
        return sources.variances(self._study, self._rows)
