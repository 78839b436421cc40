"""What each source of chance does: estimates, table, figure and documents, with known truths."""

import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from scipy import stats

from swabench.analysis import figures, variance
from swabench.analysis.frame import collect
from swabench.analysis.publish import Publication
from swabench.analysis.publish_sources import SourcesPublication
from swabench.analysis.variance import deviation_interval, interval_factors, variances
from swabench.records import RecordStore
from swabench.study.seeds import SOURCES, source_of
from swabench.study.study import Study
from tests.drawing import kept
from tests.made_up import Truth, study_with, write_run

GOLDEN = Path(__file__).parent / "golden"
SEEDS = 16  # four draws of each source
# By how much the accuracy of a row moves with each source, in points.
SCALES: Mapping[str, Mapping[str, float]] = {
    "adam": {"head": 0.05, "order": 0.1, "split": 0.2, "backbone": 0.9},
    "sgd": {"head": 0.01, "order": 0.04, "split": 0.2, "backbone": 0.8},
}
# And by how much more with each row further down.
SHIFTS: Mapping[str, float] = {"head": 3.0, "order": 1.0, "split": 0.3, "backbone": 0.01}


def sources_study(**changes: Any) -> Study:
    settings: dict[str, Any] = {
        "seed_draws": SOURCES,
        "one_source_at_a_time": True,
        "rate_sweep": None,
        **changes,
    }
    return study_with(settings.pop("seeds", SEEDS), **settings)


def accuracy(study: Study, name: str, seed: int) -> float:
    """At the draws of a source: 93 − a, 93 − a/3, 93 + a/3, 93 + a, and a little of the method."""
    source = source_of(seed, study.seed_draws)
    turn = seed // len(study.seed_draws)
    place = list(study.row_names).index(name)
    # Methods meet a source's draws in orders of their own, so that differences vary, too.
    scale = SCALES.get(name, SCALES["sgd"])[source] * (1 + place * SHIFTS[source])
    return 93 + 0.01 * place + scale * (2 * ((turn + place % 3) % 4) / 3 - 1)


def loss(study: Study, name: str, seed: int) -> float:
    return 0.25 - (accuracy(study, name, seed) - 93) / 30


def write(folder: Path, study: Study, seeds: int = SEEDS) -> RecordStore:
    store = RecordStore(folder, study)
    for name in study.row_names:
        for seed in range(seeds):
            truth = Truth.exactly(accuracy(study, name, seed), loss(study, name, seed))
            write_run(store, study, name, seed, truth)
    return store


@pytest.fixture(scope="module")
def study() -> Study:
    return sources_study()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, study: Study) -> RecordStore:
    return write(tmp_path_factory.mktemp("results"), study)


@pytest.fixture(scope="module")
def frame(study: Study, store: RecordStore) -> pd.DataFrame:
    return variances(study, collect(study, store, range(SEEDS)))


# --- a deviation and its interval --------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5, 10])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_an_interval_ends_where_a_chi_square_test_would_reject(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).normal(5, 2, n)
    found = deviation_interval(values, confidence)
    assert found.draws == n
    assert found.mean == pytest.approx(values.mean())
    assert found.deviation == pytest.approx(
        np.sqrt(((values - values.mean()) ** 2).sum() / (n - 1))
    )
    squares = ((values - values.mean()) ** 2).sum()
    tail = (1 - confidence) / 2
    assert stats.chi2.sf(squares / found.low**2, n - 1) == pytest.approx(tail)
    assert stats.chi2.cdf(squares / found.high**2, n - 1) == pytest.approx(tail)


def test_factors_are_those_of_the_tables() -> None:
    """For ten draws at 95 %: chi-square quantiles 19.0228 and 2.70039 with 9 degrees."""
    low, high = interval_factors(10, 0.95)
    assert low == pytest.approx((9 / 19.0228) ** 0.5, rel=1e-5)
    assert high == pytest.approx((9 / 2.70039) ** 0.5, rel=1e-5)


@pytest.mark.parametrize(("n", "confidence"), [(10, 0.95), (4, 0.8)])
def test_intervals_cover_the_truth_as_often_as_they_say(n: int, confidence: float) -> None:
    draws = np.random.default_rng(0).normal(93, 0.05, (3000, n))
    found = [deviation_interval(values, confidence) for values in draws]
    covered = np.mean([each.low <= 0.05 <= each.high for each in found])
    # Four standard errors of such a count.
    assert abs(covered - confidence) < 4 * (confidence * (1 - confidence) / len(draws)) ** 0.5


def test_few_or_equal_draws() -> None:
    none, one, same = (deviation_interval(v, 0.95) for v in ([], [3.0], [0.1, 0.1, 0.1]))
    assert (none.draws, one.draws, one.mean) == (0, 1, 3)
    assert all(np.isnan([none.mean, none.deviation, one.deviation, one.low, one.high]))
    assert (same.deviation, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize("values", [[1.0, np.nan], [[1.0, 2.0]]])
def test_what_is_no_sample_is_a_mistake(values: Any) -> None:
    with pytest.raises(ValueError, match="values"):
        deviation_interval(values, 0.95)
    with pytest.raises(ValueError, match="confidence"):
        deviation_interval([1.0, 2.0], 95)


# --- of records --------------------------------------------------------------------------------


def test_every_row_and_its_difference_to_the_reference_has_every_source(
    frame: pd.DataFrame, study: Study
) -> None:
    others = [name for name in study.row_names if name != "sgd"]
    expected = [
        (measure, quantity, name, source)
        for measure in ("accuracy", "loss")
        for quantity, names in (("result", study.row_names), ("difference_to_sgd", others))
        for name in names
        for source in SOURCES
    ]
    columns = ["measure", "quantity", "method", "source"]
    assert list(frame[columns].itertuples(index=False, name=None)) == expected
    assert (frame["draws"] == 4).all()


def test_numbers_are_those_of_the_draws_of_each_source(frame: pd.DataFrame, study: Study) -> None:
    for row in frame.to_dict(orient="records"):
        of = accuracy if row["measure"] == "accuracy" else loss
        seeds = [s for s in range(SEEDS) if source_of(s, study.seed_draws) == row["source"]]
        values = np.array([of(study, row["method"], seed) for seed in seeds])
        if row["quantity"] != "result":
            values -= np.array([of(study, "sgd", seed) for seed in seeds])
        assert row["mean"] == pytest.approx(values.mean())
        assert row["deviation"] == pytest.approx(np.std(values, ddof=1))
        assert row["low"] < row["deviation"] < row["high"]


def test_shares_sum_to_one_and_are_those_of_the_variances(frame: pd.DataFrame) -> None:
    for _, rows in frame.groupby(["measure", "quantity", "method"]):
        assert rows["share"].sum() == pytest.approx(1)
        squares = rows["deviation"] ** 2
        np.testing.assert_allclose(rows["share"], squares / squares.sum())
    adam = frame[(frame["method"] == "adam") & (frame["quantity"] == "result")]
    assert adam.groupby("measure")["share"].idxmax().map(adam["source"]).tolist() == 2 * [
        "backbone"
    ]


def test_a_source_with_one_draw_leaves_the_shares_open(tmp_path: Path, study: Study) -> None:
    store = write(tmp_path, study, seeds=7)  # two of each but the backbone
    found = variances(study, collect(study, store, range(7)))
    assert found["share"].isna().all()
    few = found[found["source"] == "backbone"]
    assert (few["draws"] == 1).all()
    assert few["deviation"].isna().all()
    shown = variance.presentable(found, study, "accuracy")
    assert set(shown.iloc[:, 4]) == {"—"}
    assert set(shown["Draws"]) == {"1 to 2"}
    assert not shown["head, points [95 %], share"].str.endswith("%").any()
    assert variance.findings(found, study) == []


def test_a_row_that_never_varies_has_no_shares(tmp_path: Path) -> None:
    study = sources_study(seeds=8)
    store = RecordStore(tmp_path, study)
    for seed in study.seeds:
        write_run(store, study, "sgd", seed, Truth.exactly(93, 0.25))
        write_run(store, study, "swa", seed, Truth.exactly(93 + seed, 0.25))
    found = variances(study, collect(study, store, study.seeds)).query("quantity == 'result'")
    constant = found[found["method"] == "sgd"]
    assert (constant["deviation"] == 0).all()
    assert constant["share"].isna().all()
    assert (found.loc[found["method"] == "pswa", "draws"] == 0).all()


# --- documents ---------------------------------------------------------------------------------


def test_golden_file(frame: pd.DataFrame, study: Study) -> None:
    text = variance.as_markdown(study, frame, "")
    golden = GOLDEN / "sources.md"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_what_a_person_reads_says_at_which_confidence(store: RecordStore) -> None:
    study = sources_study(confidence=0.8)
    found = variances(study, collect(study, store, range(SEEDS)))
    text = variance.as_markdown(study, found, "INCOMPLETE: nothing.")
    assert "95 %" not in text
    assert "backbone, points [80 %], share" in text
    assert "The 80 % intervals" in text
    assert "INCOMPLETE: nothing." in text


OF_A_COMPARISON = (
    "table.csv", "table.md", "table.tex", "trajectories.csv", "ensemble.csv", "claims.md",
    "claims.csv", "predictions.csv", "mcnemar.csv", "pairs.csv",
)  # fmt: skip


@pytest.fixture(scope="module")
def published(store: RecordStore, study: Study) -> dict[str, str]:
    """Documents, by name."""
    for name in OF_A_COMPARISON:
        store.write_text(name, "of when the study compared methods")
    publication = SourcesPublication(study, store, list(range(SEEDS)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "FORMATS", ("svg",))
        for document in (publication.table, publication.figures, publication.claims):
            assert document().lacking == ""
        publication.report()
    return {path.name: path.read_text() for path in store.folder.glob("*.*")}


def test_documents_of_sources_are_written_and_no_comparison(
    published: dict[str, str], frame: pd.DataFrame, store: RecordStore
) -> None:
    assert published.keys() == {
        "sources.csv", "sources.md", "metrics.csv", "manifest.json", "report.html"
    }  # fmt: skip
    read = pd.read_csv(store.folder / "sources.csv")
    pd.testing.assert_frame_equal(read, frame, check_dtype=False, rtol=1e-5)
    manifest = json.loads(published["manifest.json"])
    assert manifest["study"]["one_source_at_a_time"] is True
    assert manifest["draws"]["6"] == {"head": 0, "order": 0, "split": 2, "backbone": 0}
    assert list(manifest["draws"]) == [str(seed) for seed in range(SEEDS)]
    assert manifest["backbone"].keys() == {"0", "1", "2", "3", "4"}


def test_an_ordinary_table_takes_the_sources_away(tmp_path: Path) -> None:
    study = study_with(2, rate_sweep=None)
    store = RecordStore(tmp_path, study)
    for seed in (0, 1):
        write_run(store, study, "sgd", seed)
    store.write_text("sources.md", "of when seeds took turns")
    Publication(study, store, [0, 1]).table()
    assert not (store.folder / "sources.md").exists()
    table = (store.folder / "table.md").read_text()
    assert study.draws_in_words in table


def test_the_page_shows_the_sources_and_speaks_of_no_claim(
    published: dict[str, str], study: Study, frame: pd.DataFrame
) -> None:
    page = html.unescape(published["report.html"])
    assert study.draws_in_words in page
    assert 'href="#claims"' not in page
    assert 'id="claims"' not in page
    assert page.count("<table") == 3  # two measures, the manifest
    assert page.count("<figure>") == 1
    for measure in ("accuracy", "loss"):
        for cell in variance.presentable(frame, study, measure).to_numpy()[:, 1:5].flat:
            assert str(cell).split(" [")[0] in page
    for line in variance.findings(frame, study):
        assert line.split(":")[0] in page
    assert "no claim is decided" in page


def test_programs_get_the_same_numbers(store: RecordStore, study: Study) -> None:
    content = SourcesPublication(study, store, list(range(SEEDS))).table().content
    found = pd.DataFrame(content["sources"])
    pd.testing.assert_frame_equal(
        found, variances(study, collect(study, store, range(SEEDS))), check_dtype=False
    )


def test_a_command_shows_the_sources_of_the_accuracy_and_what_was_found(
    store: RecordStore, study: Study, frame: pd.DataFrame
) -> None:
    done = SourcesPublication(study, store, list(range(SEEDS))).table()
    assert done.shown is not None
    pd.testing.assert_frame_equal(done.shown, variance.presentable(frame, study, "accuracy"))
    findings = variance.findings(frame, study)
    assert list(done.notes) == [
        study.draws_in_words,
        *findings,
        f"no comparison of methods: {variance.INSTEAD}",
    ]
    assert len(findings) == 2
    assert set(done.files) == {"sources.csv", "sources.md", "metrics.csv", "manifest.json"}
    heading = {key: done.content[key] for key in ("reference", "confidence", "seed_draws", "seeds")}
    assert heading == {
        "reference": "sgd",
        "confidence": 0.95,
        "seed_draws": list(SOURCES),
        "seeds": list(range(SEEDS)),
    }


def test_the_page_says_how_its_numbers_are_to_be_read(
    published: dict[str, str], frame: pd.DataFrame, study: Study
) -> None:
    page = html.unescape(published["report.html"]).replace("\u00a0", " ")
    for line in (*variance.notes(frame, study), *variance.findings(frame, study)):
        assert line in page


def test_notes_are_of_the_source_with_the_most_draws(tmp_path: Path, study: Study) -> None:
    """Of 6 seeds two sources have two draws and two have one; of 4 seeds each has one."""
    store = write(tmp_path, study, seeds=6)
    some, single = (variances(study, collect(study, store, range(n))) for n in (6, 4))
    low, high = interval_factors(2, 0.95)
    *_, last = variance.notes(some, study)
    assert f"With 2 draws they reach from {low:.2f} to {high:.2f} times" in last
    assert not any("intervals" in line for line in variance.notes(single, study))


def test_differences_are_over_the_seeds_that_the_reference_has(
    tmp_path: Path, study: Study
) -> None:
    store = write(tmp_path, study, seeds=8)
    write_run(store, study, "swa", 8, Truth.exactly(99, 0.2))
    found = variances(study, collect(study, store, range(9))).set_index(["method", "quantity"])
    heads = found[(found["source"] == "head") & (found["measure"] == "accuracy")]
    assert heads.loc[("swa", "result"), "draws"] == 3
    assert heads.loc[("swa", "difference_to_sgd"), "draws"] == 2


def test_missing_runs_are_told(tmp_path: Path, study: Study) -> None:
    store = write(tmp_path, study, seeds=7)
    publication = SourcesPublication(study, store, list(range(8)))
    assert "swa lacks seeds 7" in publication.report().lacking
    assert "swa lacks seeds 7" in publication.table().lacking
    assert "swa lacks seeds 7" in (store.folder / "sources.md").read_text()
    assert "swa lacks seeds 7" in publication.claims().lacking


def test_a_run_that_diverged_has_no_deviations_and_is_told(tmp_path: Path, study: Study) -> None:
    store = write(tmp_path, study, seeds=7)
    write_run(store, study, "swa", 7, diverged_after=1)
    for name in study.row_names:
        write_run(store, study, name, 7, Truth.exactly(90, 0.3))
    publication = SourcesPublication(study, store, list(range(8)))
    table = publication.table()
    told = "swa diverged at 1 of 8 seeds, so it has no deviations."
    assert table.lacking == publication.report().lacking == publication.figures().lacking == ""
    assert told in table.notes
    for document in ("sources.md", "report.html"):
        assert told in (store.folder / document).read_text()
    found = variances(study, collect(study, store, range(8)))
    assert found.loc[found["method"] == "swa", "deviation"].isna().all()
    assert found.loc[found["method"] == "sgd", "deviation"].notna().any()


# --- the figure --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def axes(store: RecordStore, study: Study) -> list[Axes]:
    (picture,), found = kept(lambda: figures.draw(study, store, range(SEEDS)))
    assert (picture.name, picture.skipped, picture.note) == ("sources", "", "")
    return found[0].axes


def test_every_deviation_is_drawn_with_its_interval(axes: list[Axes], frame: pd.DataFrame) -> None:
    own = frame[frame["measure"] == "accuracy"]
    lines = [np.asarray(line.get_xdata(), dtype=float) for line in axes[0].lines]
    intervals = [line.tolist() for line in lines if line.size == 2]
    np.testing.assert_allclose(intervals, own[["low", "high"]])
    points = [float(line[0]) for line in lines if line.size == 1]
    np.testing.assert_allclose(points, own["deviation"])
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels[0] == "adam"
    assert labels[6] == "adam less sgd"
    assert len(labels) == 11


def test_shares_fill_their_line(axes: list[Axes], frame: pd.DataFrame) -> None:
    own = frame[frame["measure"] == "accuracy"]
    bars: list[Any] = list(axes[1].patches)
    np.testing.assert_allclose([bar.get_width() for bar in bars], 100 * own["share"])
    ends = [bar.get_x() + bar.get_width() for bar in bars[len(SOURCES) - 1 :: len(SOURCES)]]
    np.testing.assert_allclose(ends, 100)


def test_every_source_has_its_place_its_colour_and_its_name(
    axes: list[Axes], frame: pd.DataFrame
) -> None:
    """In both panels and in the legend, around the line whose name stands beside it."""
    left, right = axes
    figure = left.get_figure()
    assert figure is not None
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(SOURCES)
    looks: list[Any] = [(h.get_color(), h.get_marker()) for h in legend.legend_handles]  # type: ignore[union-attr]
    assert len({color for color, _ in looks}) == len({marker for _, marker in looks}) == 4
    own = frame[frame["measure"] == "accuracy"].reset_index(drop=True)
    lines = list(left.lines)
    intervals = [line for line in lines if len(np.asarray(line.get_xdata())) == 2]
    points = [line for line in lines if len(np.asarray(line.get_xdata())) == 1]
    bars: list[Any] = list(right.patches)
    places = dict(
        zip([t.get_text() for t in left.get_yticklabels()], left.get_yticks(), strict=True)
    )
    assert list(places.values()) == sorted(places.values())
    for row, interval, point, bar in zip(
        own.to_dict(orient="records"), intervals, points, bars, strict=True
    ):
        number = SOURCES.index(row["source"])
        less = "" if row["quantity"] == "result" else " less sgd"
        place = places[row["method"] + less]
        color, marker = looks[number]
        (height,) = set(np.asarray(interval.get_ydata(), dtype=float))
        assert height == np.asarray(point.get_ydata(), dtype=float)[0]
        # Side by side about the line, in the legend's order, and nearer to it than to the next.
        assert height - place == pytest.approx((number - 1.5) * 0.19)
        assert (interval.get_color(), point.get_color(), point.get_marker()) == (
            color, color, marker,
        )  # fmt: skip
        assert to_hex(bar.get_facecolor()).upper() == color.upper()
        assert bar.get_y() + bar.get_height() / 2 == pytest.approx(place)
        before = own[(own[["quantity", "method"]] == [row["quantity"], row["method"]]).all(axis=1)]
        shares = before["share"].to_numpy()[:number].sum()
        assert bar.get_x() == pytest.approx(100 * shares, abs=1e-9)


def test_the_figure_names_its_axes_its_confidence_and_its_reference(store: RecordStore) -> None:
    study = sources_study(confidence=0.8, reference="swa")
    (picture,), found = kept(lambda: figures.draw(study, store, range(SEEDS)))
    left, right = found[0].axes
    assert left.get_xlabel() == "Standard deviation (points)"
    assert left.get_xscale() == "log"
    assert right.get_xlabel() == "Share of variance (%)"
    assert (right.get_xscale(), right.get_xlim()) == ("linear", (0, 100))
    assert "with 80 % intervals" in picture.caption
    assert "difference to swa, paired by seed" in picture.caption
    assert left.get_yticklabels()[-1].get_text() == "pswa less swa"


def test_shares_that_are_not_known_are_not_drawn(tmp_path: Path, study: Study) -> None:
    store = write(tmp_path, study, seeds=7)  # one draw of the backbone
    (picture,), found = kept(lambda: figures.draw(study, store, range(8)))
    left, right = found[0].axes
    assert not right.patches
    assert len([line for line in left.lines if np.isfinite(line.get_xdata()).all()]) == 2 * 3 * 11
    names = "; ".join(f"{name} lacks seeds 7" for name in study.row_names)
    assert picture.note == f"INCOMPLETE: {names}."


def test_too_few_draws_are_told(tmp_path: Path, study: Study) -> None:
    store = write(tmp_path, study, seeds=3)
    (picture,) = figures.draw(study, store, range(3))
    assert picture.skipped == "no source has two draws that differ; run more seeds"
