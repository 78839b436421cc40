"""The commands that make documents from records alone, and what prints them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from swabench.cli.app import WRITE, app
from swabench.cli.options import Asked, JsonOption, with_options
from swabench.cli.printing import err, print_table, say, say_json
from swabench.study.study import Study
from swabench.system.errors import SwabenchError

# torch, pandas and matplotlib take seconds to import; only the commands that use them pay.
if TYPE_CHECKING:
    from swabench.analysis.publish import Publication, Published
    from swabench.records import RecordStore


@app.command(rich_help_panel=WRITE)
@with_options
def table(asked: Asked, json: JsonOption = False) -> None:
    """Write the comparison table (CSV, Markdown, LaTeX) and the manifest, from records alone."""
    _publish(lambda publication: publication.table(), asked, json)


@app.command(rich_help_panel=WRITE)
@with_options
def figures(asked: Asked) -> None:
    """Draw the figures (PNG and SVG), from records alone."""
    _publish(lambda publication: publication.figures(), asked)


@app.command(rich_help_panel=WRITE)
@with_options
def claims(asked: Asked, json: JsonOption = False) -> None:
    """Decide the paper's claims by the study's rules, from records alone."""
    _publish(lambda publication: publication.claims(), asked, json)


@app.command(rich_help_panel=WRITE)
@with_options
def report(asked: Asked) -> None:
    """Write report.html: table, figures, claims, settings and manifest on one page."""
    _publish(lambda publication: publication.report(), asked)


def publication_of(study: Study, store: "RecordStore", seeds: list[int]) -> "Publication":
    """What writes a study's documents."""
    from swabench.analysis.publish import Publication
    from swabench.analysis.publish_sources import SourcesPublication

    if study.one_source_at_a_time:
        return SourcesPublication(study, store, seeds)
    return Publication(study, store, seeds)


def work_left(study: Study, store: "RecordStore", seeds: list[int]) -> str:
    """What of a study is not done yet, in words; empty where all is."""
    from swabench.landscape.parts import missing_parts, unsurveyable

    start = study.pretrain.name
    lost = {record.seed for record in store.diverged([start], seeds)}  # nothing starts there
    missing = store.missing(study.run_names, seeds)
    if runs := [run for run in missing if run[0] == start or run[1] not in lost]:
        return f"{len(runs)} runs"
    if not unsurveyable(study, store, seeds) and (parts := missing_parts(study, store, seeds)):
        return f"{len(parts)} parts of the landscape"
    return ""


def show_published(published: "Published", store: "RecordStore", json: bool) -> None:
    """Print what was written, for a person or for a program."""
    if json:
        say_json(published.content)
        say(_written(published, store), to=err)
    else:
        print_published(published, store)


def print_published(published: "Published", store: "RecordStore") -> str:
    """Print what was written; returns what is missing."""
    if published.shown is not None:
        print_table(published.title, published.shown)
    for line in published.notes:
        say(line)
    if published.files:
        say(_written(published, store))
    return published.lacking


def _publish(
    document: "Callable[[Publication], Published]", asked: Asked, json: bool = False
) -> None:
    """Write one document; what is missing ends in an error, after everything else was printed."""
    from swabench.records import RecordStore

    study, chosen = asked.study()
    store = RecordStore.to_read(asked.results, study)
    published = document(publication_of(study, store, chosen))
    show_published(published, store, json)
    if published.lacking:
        raise SwabenchError(published.lacking)


def _written(published: "Published", store: "RecordStore") -> str:
    return f"written to {store.folder}: {', '.join(published.files)}"
