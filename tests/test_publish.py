"""Documents made from records: complete, honest about what lacks, the same bytes anywhere."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from swabench.analysis import claims_text, figures, table
from swabench.analysis import publish as publishing
from swabench.analysis.claims import decide_claims, pairs_compared
from swabench.analysis.flatness import LINE, measure_flatness
from swabench.analysis.frame import Records, collect, read_metrics
from swabench.analysis.manifest import manifest
from swabench.analysis.predictions import tables_of_predictions
from swabench.analysis.publish import Publication
from swabench.analysis.surveys import surveys, tables_by_seed
from swabench.records import RecordStore
from swabench.study.study import Study
from swabench.system.errors import SwabenchError
from swabench.training.measurement import Predictor
from tests.made_up import (
    ENVIRONMENT,
    PROVENANCE,
    Truth,
    last_of,
    outcome,
    record_of,
    small_study,
    survey,
    write_run,
    write_study,
)

TABLES = {
    "table.csv", "table.md", "table.tex", "trajectories.csv", "ensemble.csv", "metrics.csv",
    "manifest.json",
}  # fmt: skip
TABLES_OF_PARTS = {
    "lines": ["lines"],
    "segments": ["segments"],
    "plane": ["grid", "marks", "paths"],
    "rays": ["rays"],
    "sharpness": ["sharpness"],
    "hessian": ["hessian"],
}
LANDSCAPE = {f"landscape-{name}.csv" for names in TABLES_OF_PARTS.values() for name in names}
LANDSCAPE |= {"flatness.csv"}
FIGURES = ["1-average", "2-line", "3-phases", "4-forest", "5-plane", "6-flatness", "7-rates"]


def publish(study: Study, store: RecordStore) -> dict[str, bytes]:
    """Write every document; what was written, by name."""
    publication = Publication(study, store, list(study.seeds))
    for document in (publication.table, publication.figures, publication.claims):
        document()
    publication.report()
    return documents(store)


def documents(store: RecordStore) -> dict[str, bytes]:
    paths = [*store.folder.glob("*.*"), *store.folder.glob("figures/*")]
    return {str(path.relative_to(store.folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    study = small_study()
    store = write_study(tmp_path_factory.mktemp("results"), study, {"adam": Truth(accuracy=91)})
    survey(study, store, study.seeds)
    return store


@pytest.fixture(scope="module")
def published(store: RecordStore) -> dict[str, bytes]:
    return publish(small_study(), store)


def test_every_document_is_written(published: dict[str, bytes]) -> None:
    drawn = {f"figures/figure{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    of_claims = {"claims.md", "claims.csv", "predictions.csv", "mcnemar.csv", "pairs.csv"}
    assert published.keys() == TABLES | LANDSCAPE | drawn | of_claims | {"report.html"}


def test_the_report_shows_every_figure_that_is_drawn(
    store: RecordStore, published: dict[str, bytes]
) -> None:
    page = published["report.html"].decode()
    shown = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', page)
    drawn = [published[f"figures/figure{name}.svg"] for name in ["7-rates", *FIGURES[:-1]]]
    assert [base64.b64decode(image) for image in shown] == drawn


def test_what_was_measured_of_the_landscape_is_written_and_listed(
    store: RecordStore, published: dict[str, bytes]
) -> None:
    listed = json.loads(published["manifest.json"])["landscape"]
    assert set(listed) == set(TABLES_OF_PARTS)
    for record in surveys(small_study(), store, [0, 1]):
        entry = listed[record.part][str(record.seed)]
        assert entry["identity"] == record.identity
        weights = {name: record_of(store, name, record.seed) for name in entry["weights"]}
        assert entry["weights"] == {n: run.arrays_sha256 for n, run in weights.items()}
        assert "sgd" in weights
        for name in TABLES_OF_PARTS[record.part]:
            written = pd.read_csv(store.folder / f"landscape-{name}.csv")
            own = written[written["seed"] == record.seed].drop(columns="seed")
            pd.testing.assert_frame_equal(
                own.reset_index(drop=True), record.tables[name], check_dtype=False, atol=1e-6
            )
    flatness = pd.read_csv(store.folder / "flatness.csv")
    assert set(flatness["seed"]) == {0, 1}
    assert (flatness["measure"] == LINE).any()


def test_tables_of_a_landscape_that_is_gone_are_taken_away(tmp_path: Path) -> None:
    study = small_study()
    store = write_study(tmp_path, study)
    survey(study, store, study.seeds)
    publication = Publication(study, store, [0, 1])
    publication.landscape()
    assert documents(store).keys() >= LANDSCAPE
    shutil.rmtree(store.folder / "landscape")
    Publication(study, store, [0, 1]).landscape()
    assert not LANDSCAPE & documents(store).keys()


ELSEWHERE = """
import hashlib, json, sys, time
from pathlib import Path
time.time = lambda: 2e9
import numpy, random
numpy.random.seed(7), random.seed(7)
from swabench.records import RecordStore
from tests.made_up import small_study
from tests.test_publish import publish
study = small_study()
found = publish(study, RecordStore(Path(sys.argv[1]), study))
print(json.dumps({name: hashlib.sha256(content).hexdigest() for name, content in found.items()}))
"""


def test_the_same_records_give_the_same_bytes_elsewhere(
    store: RecordStore, published: dict[str, bytes], tmp_path: Path
) -> None:
    """With other clock, random numbers, order of sets, place, locale and matplotlibrc."""
    target = tmp_path / "moved"
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: yellow\nlines.linestyle: --\n")
    for name in ("runs", "landscape"):
        source = store.folder / name
        for path in sorted(source.rglob("*"), reverse=True):  # listed in another order
            if path.is_file():
                copy = target / "smoke" / path.relative_to(store.folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    other = {
        "PYTHONHASHSEED": "1",
        "SOURCE_DATE_EPOCH": "1",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "MATPLOTLIBRC": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(target)],
        env={**os.environ, **other}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = {name: hashlib.sha256(text).hexdigest() for name, text in published.items()}
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def test_files_for_programs_hold_the_records_numbers(
    store: RecordStore, published: dict[str, bytes]
) -> None:
    study = small_study()
    shown = pd.read_csv(store.folder / "table.csv").set_index("method")
    for name in study.row_names:
        records = [record_of(store, name, s) for s in study.seeds]
        result: Predictor = "average" if study.row_method(name).averaging else "iterate"
        for measure in ("accuracy", "loss"):
            expected = np.mean([getattr(last_of(r, result, "test"), measure) for r in records])
            assert shown.loc[name, measure] == pytest.approx(expected, abs=1e-6)
    metrics = pd.read_csv(store.folder / "metrics.csv")
    expected_rows = [
        (name, seed, m.epoch, m.predictor, m.split)
        for name in study.run_names
        for seed in study.seeds
        for m in outcome(study, name, seed).history
    ]
    columns = ["method", "seed", "epoch", "predictor", "split"]
    assert list(metrics[columns].itertuples(index=False, name=None)) == expected_rows
    assert metrics["accuracy"].is_unique
    ensembles = pd.read_csv(store.folder / "ensemble.csv")
    assert list(ensembles["method"]) == list(study.averaging_methods)


def test_numbers_for_programs_have_nine_digits_where_others_follow_from_them(
    store: RecordStore, published: dict[str, bytes]
) -> None:
    study = small_study()
    metrics = pd.read_csv(store.folder / "metrics.csv")
    expected = [
        (m.accuracy, m.loss)
        for name in study.run_names
        for seed in study.seeds
        for m in record_of(store, name, seed).history
    ]
    np.testing.assert_allclose(metrics[["accuracy", "loss"]], expected, rtol=1e-8)
    lines = pd.read_csv(store.folder / "landscape-lines.csv")
    losses = [r.tables["lines"]["loss"] for r in surveys(study, store, [0, 1]) if r.part == "lines"]
    np.testing.assert_allclose(lines["loss"], pd.concat(losses), rtol=1e-8)


def test_average_less_iterate_is_written_for_the_sweeps_runs_too(
    store: RecordStore, published: dict[str, bytes]
) -> None:
    study = small_study()
    found = pd.read_csv(store.folder / "trajectories.csv").set_index("method")
    names = [name for name in study.run_names if study.row_method(name).averaging]
    assert list(found.index) == names
    assert "swa-rate-0.05" in names
    for name in names:
        records = [record_of(store, name, seed) for seed in study.seeds]
        gains = [
            last_of(r, "average", "test").loss - last_of(r, "iterate", "test").loss for r in records
        ]
        assert found.loc[name, "loss_difference"] == pytest.approx(np.mean(gains), abs=1e-6)


def test_what_claims_take_from_predictions_is_written_beside_them(
    store: RecordStore, published: dict[str, bytes]
) -> None:
    study = small_study()
    tables = tables_of_predictions(
        collect(study, store, study.seeds, study.run_names),
        study.seeds,
        pairs=pairs_compared(study),
        ensembles=[study.claims.swa, study.claims.swa_cyclical],
        rows=study.row_names,
    )
    for name, expected in (
        ("predictions.csv", tables.numbers_frame()),
        ("mcnemar.csv", tables.mcnemar_frame()),
        ("pairs.csv", tables.pairs_frame()),
    ):
        found = pd.read_csv(store.folder / name)
        assert len(found)
        pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-8)


def test_programs_get_all_of_the_table_and_of_the_seeds_that_were_asked_for(
    store: RecordStore, tmp_path: Path
) -> None:
    """At a reference and a confidence of its own; the files that are named are those written."""
    study = small_study().model_copy(update={"reference": "swa", "confidence": 0.8})
    for name in ("runs", "landscape"):
        shutil.copytree(store.folder / name, tmp_path / "smoke" / name)
    store = RecordStore(tmp_path, study)
    records = collect(study, store, [1], study.run_names)
    rows = records.of(study.row_names)
    done = Publication(study, store, [1]).table()
    assert done.content.keys() == {
        "study", "title", "seeds", "missing", "diverged", "reference", "confidence", "table",
        "trajectories", "ensembles", "not_distinguished",
    }  # fmt: skip
    heading = ("study", "title", "seeds", "missing", "diverged", "reference", "confidence")
    assert [done.content[key] for key in heading] == [
        "smoke", study.title, [1], {}, {}, "swa", 0.8
    ]  # fmt: skip
    for key, frame in (
        ("table", table.comparison(study, rows)),
        ("trajectories", table.on_one_trajectory(study, records)),
        ("ensembles", table.ensembles(study, rows)),
    ):
        pd.testing.assert_frame_equal(pd.DataFrame(done.content[key]), frame)
    lines = table.not_distinguished(study, rows)
    assert len(lines) == len(rows) - 1
    assert done.content["not_distinguished"] == lines
    assert done.notes == ["These are seeds 1; the study has 0, 1.", *lines]
    assert done.title == study.title
    assert len(done.files) > len(TABLES)
    assert set(done.files) == documents(store).keys()
    listed = json.loads((store.folder / "manifest.json").read_text())["landscape"]
    assert set(listed["rays"]) == {"1"}


def test_every_claim_is_decided_from_runs_and_landscape_and_written(
    store: RecordStore, published: dict[str, bytes]
) -> None:
    study = small_study()
    flatness = measure_flatness(tables_by_seed(surveys(study, store, study.seeds)))
    assert flatness[LINE]["swa"].keys() == flatness[LINE]["sgd"].keys() == {0, 1}
    records = collect(study, store, study.seeds, study.run_names)
    tables = tables_of_predictions(
        records,
        study.seeds,
        pairs=pairs_compared(study),
        ensembles=["swa", "swa-cyclical"],
        rows=study.row_names,
    )
    claims = decide_claims(study, records, study.seeds, flatness, tables)
    assert [claim.key for claim in claims] == [f"C{k}" for k in range(1, 9)]
    frame = pd.read_csv(store.folder / "claims.csv")
    text = published["claims.md"].decode()
    for claim in claims:
        rows = frame[frame["claim"] == claim.key]
        assert set(rows["verdict"]) == {claim.verdict}
        assert len(rows) == max(1, len(claim.evidence))
        if claim.evidence:
            means = [e.estimate.mean for e in claim.evidence]
            np.testing.assert_allclose(rows["difference"], means, atol=1e-6)
        section = text.split(f"## {claim.key}: {claim.question}\n")[1].split("\n## ")[0]
        verdict = claims_text.in_words(claim.verdict, study)
        assert f"**{verdict}.** {claim.reason}" in section
        for e in claim.evidence:
            assert e.comparison in section


def test_the_manifest_names_every_run_with_its_digest_and_where_it_ran(tmp_path: Path) -> None:
    study = small_study()
    store = write_study(tmp_path, study, without=[("pswa", 1), ("swa", 0)])
    elsewhere = {**ENVIRONMENT, "device": "cuda"}
    write_run(store, study, "swa", 0, environment=elsewhere)
    records = collect(study, store, [0, 1], study.run_names)
    content = json.loads(manifest(study, records, surveys(study, store, [0, 1]), [0, 1]))
    assert content["seeds"] == [0, 1]
    assert content["study"] == study.model_dump(mode="json")
    assert content["data"] == PROVENANCE["data"]
    assert content["backbone"] == PROVENANCE["backbone"]
    runs = content["runs"]
    assert set(runs) == set(study.run_names)
    seconds = 0.0
    for name in study.run_names:
        assert set(runs[name]) == ({"0"} if name == "pswa" else {"0", "1"})
        for seed, run in runs[name].items():
            record = record_of(store, name, int(seed))
            file = (record.folder / "arrays.safetensors").read_bytes()
            assert run["sha256"] == hashlib.sha256(file).hexdigest()
            assert run["identity"] == store.identity(name, int(seed))
            ran_on = elsewhere if (name, seed) == ("swa", "0") else ENVIRONMENT
            assert content["environments"][run["environment"]] == ran_on
            assert run["seconds"] == record.seconds
            seconds += record.seconds
    assert content["training_seconds"] == pytest.approx(seconds, abs=0.06)


def test_the_manifest_lists_what_runs_and_surveys_share_once_and_refers_to_it(
    store: RecordStore,
) -> None:
    """Environments and features, of runs as of the landscape, each by its number."""
    study = small_study()
    one, other = ({**ENVIRONMENT, "device": device} for device in ("cpu", "cuda"))
    near, far = ({"head": {"training": digest}} for digest in ("a", "b"))
    made: dict[int, dict[str, Any]] = {
        0: {"environment": one, "provenance": {**PROVENANCE, "features": near}},
        1: {"environment": other, "provenance": {**PROVENANCE, "features": far}},
    }
    records = Records(
        {
            name: {seed: replace(record_of(store, name, seed), **made[seed]) for seed in (0, 1)}
            for name in study.run_names
        }
    )
    measured = [
        # The other way round than the runs, and each with a time of its own.
        replace(record, **made[1 - record.seed], seconds=10.0 + place)
        for place, record in enumerate(surveys(study, store, [0, 1]))
    ]
    content = json.loads(manifest(study, records, measured, [0, 1]))
    assert content["environments"] == [one, other]
    assert content["features"] == [near, far]
    for name in study.run_names:
        for seed in (0, 1):
            run = content["runs"][name][str(seed)]
            assert (run["environment"], run["features"]) == (seed, seed)
    for made_of in measured:
        part = content["landscape"][made_of.part][str(made_of.seed)]
        assert (part["environment"], part["features"]) == (1 - made_of.seed, 1 - made_of.seed)
        assert part["seconds"] == made_of.seconds


def test_the_manifest_says_what_the_seeds_that_were_asked_for_draw(tmp_path: Path) -> None:
    study = small_study().model_copy(update={"seed_draws": ("order", "backbone")})
    store = RecordStore(tmp_path, study)
    for seed in (0, 7):
        write_run(store, study, "sgd", seed, provenance={**PROVENANCE, "backbone": f"of {seed}"})
    records = collect(study, store, [0, 7], study.run_names)
    content = json.loads(manifest(study, records, [], [0, 7]))
    held = {"head": 0, "split": study.data.split_seed}
    assert content["draws"] == {
        str(seed): {**held, "order": seed, "backbone": seed} for seed in (0, 7)
    }
    assert content["backbone"] == {"0": "of 0", "7": "of 7"}


@pytest.fixture
def _vector_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels take most of the time."""
    for module in (figures, publishing):
        monkeypatch.setattr(module, "FORMATS", ("svg",))


@pytest.mark.usefixtures("_vector_only")
@pytest.mark.parametrize("absent", [("pswa", 1), ("adam", 0), ("sgd-rate-0.05", 1)])
def test_a_missing_run_is_told_in_every_document(tmp_path: Path, absent: tuple[str, int]) -> None:
    study = small_study()
    store = write_study(tmp_path, study, without=[absent])
    name, seed = absent
    told = f"{name} lacks seeds {seed}"
    publication = Publication(study, store, [0, 1])
    is_row = name in study.row_names
    # The table and the figures have no place for the rate sweep's runs.
    assert (told in publication.table().lacking) == is_row
    assert (told in publication.figures().lacking) == is_row
    assert told in publication.claims().lacking
    assert told in publication.report().lacking
    written = documents(store)
    for document in ("claims.md", "report.html", *(("table.md", "table.tex") if is_row else ())):
        assert told in written[document].decode(), document
    assert json.loads(written["manifest.json"])["missing"] == {name: [seed]}


@pytest.mark.usefixtures("_vector_only")
@pytest.mark.parametrize("name", ["pswa", "sgd-rate-0.05"])
def test_a_run_that_diverged_is_told_in_every_document_and_not_called_missing(
    tmp_path: Path, name: str
) -> None:
    study = small_study()
    store = write_study(tmp_path, study, diverged={(name, 1): 2})
    publication = Publication(study, store, [0, 1])
    told = f"{name} diverged at 1 of 2 seeds"
    table, claims = publication.table(), publication.claims()
    figures, report = publication.figures(), publication.report()
    assert [each.lacking for each in (table, claims, figures, report)] == [""] * 4
    assert [note for note in table.notes if note.startswith(told)]
    assert table.content["diverged"] == claims.content["diverged"] == {name: [1]}
    written = {name: content.decode() for name, content in documents(store).items()}
    for document in ("table.md", "claims.md", "report.html"):
        assert told in written[document], document
    manifest = json.loads(written["manifest.json"])
    lost = {"epoch": 2, "predictor": "iterate", "split": "validation", "loss": "nan"}
    assert manifest["missing"] == {}
    assert manifest["runs"][name]["1"]["diverged"] == lost
    assert "diverged" not in manifest["runs"][name]["0"]
    metrics = read_metrics(store.folder / "metrics.csv")
    ends = metrics[(metrics["method"] == name) & (metrics["seed"] == 1)].iloc[-1]
    assert (ends["epoch"], ends["loss"]) == (2, np.inf)
    for other in ("predictions.csv", "mcnemar.csv", "pairs.csv"):
        assert f"{name}," not in written[other], other  # nothing is summed up over the others


@pytest.mark.usefixtures("_vector_only")
def test_the_manifest_tells_what_is_missing_of_the_seeds_that_were_asked_for(
    tmp_path: Path,
) -> None:
    """Whatever seeds the study itself has, here 0 and 1."""
    study = small_study()
    store = write_study(tmp_path, study, without=[("pswa", 1)])
    write_run(store, study, "sgd", 7)

    def missing(seeds: list[int]) -> object:
        records = collect(study, store, seeds, study.run_names)
        return json.loads(manifest(study, records, [], seeds))["missing"]

    assert missing([0]) == {}
    assert missing([0, 1]) == {"pswa": [1]}
    assert missing([0, 7]) == {name: [7] for name in study.run_names if name != "sgd"}


def test_a_figure_of_records_that_are_gone_is_taken_away(tmp_path: Path) -> None:
    study = small_study()
    store = write_study(tmp_path, study)
    store.write_figure("figure2-line.svg", b"of a landscape that is no longer this one")
    publication = Publication(study, store, [0, 1])
    shown = publication.figures()
    assert "figures/figure2-line.svg" not in documents(store)
    assert any(note.startswith("figure2-line: not drawn") for note in shown.notes)
    assert set(shown.files) == {name for name in documents(store) if name.startswith("figures/")}


# --- written atomically --------------------------------------------------------------------


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_crash_while_writing_leaves_the_old_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    store = RecordStore(tmp_path, small_study())
    store.write_text("table.csv", "the old table")
    store.write_figure("figure.png", b"the old figure")
    before = documents(store)

    def fail(*_: object) -> None:
        raise failure

    writes: list[Callable[[], str]] = [
        lambda: store.write_text("table.csv", "a new table"),
        lambda: store.write_figure("figure.png", b"a new figure"),
        lambda: store.write_text("new.csv", "a table that was not there"),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        for write in writes:
            with pytest.raises((SwabenchError, KeyboardInterrupt)):
                write()
    assert documents(store) == before
    files = [path.name for path in store.folder.rglob("*") if path.is_file()]
    assert sorted(files) == ["figure.png", "table.csv"]  # nothing half-written beside them
    store.write_text("table.csv", "a new table")
    assert documents(store)["table.csv"] == b"a new table"
