"""Figures from made-up records: whole, vector, the same every time, honest about what lacks."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from swabench.analysis import figures
from swabench.analysis.figures import DPI, HEIGHT, WIDTH, Picture, draw
from swabench.analysis.report import figure
from swabench.records import RecordStore
from swabench.study.landscape import Part
from swabench.study.study import Study
from swabench.system.errors import InputError
from swabench.training.measurement import Predictor
from tests.drawing import kept
from tests.made_up import last_of, record_of, small_study, survey, write_study

WIDE = {"confidence": 0.8}
SVG = "{http://www.w3.org/2000/svg}"
NAMES = [
    "figure1-average",
    "figure2-line",
    "figure3-phases",
    "figure4-forest",
    "figure5-plane",
    "figure6-flatness",
    "figure7-rates",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    study = small_study()
    store = write_study(tmp_path_factory.mktemp("results"), study)
    survey(study, store, [0, 1])
    return store


@pytest.fixture(scope="module")
def pictures(store: RecordStore) -> list[Picture]:
    return draw(small_study(), store, [0, 1])


@pytest.fixture
def _words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pixels, which take longest: for tests of what a figure says."""
    monkeypatch.setattr(figures, "FORMATS", ("svg",))


@pytest.fixture(scope="module")
def made(store: RecordStore) -> Mapping[str, tuple[Picture, Figure]]:
    """Every picture with its figure, as matplotlib has it before it becomes bytes.

    Of a study with another confidence than the usual, which is read from records all the same.
    """
    return made_of(small_study().model_copy(update=WIDE), store, [0, 1])


def made_of(
    study: Study, store: RecordStore, seeds: Sequence[int]
) -> Mapping[str, tuple[Picture, Figure]]:
    """The pictures of a study that are drawn, each with its figure."""
    pictures, found = kept(lambda: draw(study, store, seeds))
    shown = [picture for picture in pictures if not picture.skipped]
    return {p.name: (p, figure) for p, figure in zip(shown, found, strict=True)}


@pytest.fixture(scope="module")
def drawn(made: Mapping[str, tuple[Picture, Figure]]) -> Mapping[str, Sequence[Axes]]:
    """The axes of every figure."""
    return {name: figure.axes for name, (_, figure) in made.items()}


def texts(picture: Picture) -> list[str]:
    root = ElementTree.fromstring(picture.content["svg"])
    return ["".join(node.itertext()).strip() for node in root.iter(f"{SVG}text")]


def by_name(pictures: list[Picture], name: str) -> Picture:
    return next(picture for picture in pictures if picture.name == name)


def test_every_figure_is_drawn_whole(pictures: list[Picture]) -> None:
    assert [picture.name for picture in pictures] == NAMES
    for picture in pictures:
        assert (picture.note, picture.skipped) == ("", "")
        assert picture.caption
        image = Image.open(io.BytesIO(picture.content["png"]))
        assert image.size == (round(WIDTH * DPI), round(HEIGHT * DPI))


def test_svg_is_vector_with_text_as_text(pictures: list[Picture]) -> None:
    for picture in pictures:
        root = ElementTree.fromstring(picture.content["svg"])
        assert not list(root.iter(f"{SVG}image"))
        assert len(texts(picture)) > 10
    assert {"swa-cyclical, iterate", "Test loss (nats)"} <= set(
        texts(by_name(pictures, "figure1-average"))
    )
    assert {"phase 1", "phase 3", "pswa, average"} <= set(
        texts(by_name(pictures, "figure3-phases"))
    )
    assert "Difference to sgd (points)" in texts(by_name(pictures, "figure4-forest"))
    assert {"adam", "sgd", "swa"} <= set(texts(by_name(pictures, "figure5-plane")))


def test_nothing_is_clipped_at_the_edges(pictures: list[Picture]) -> None:
    for picture in pictures:
        grey = np.asarray(Image.open(io.BytesIO(picture.content["png"])).convert("L"))
        for edge in (grey[:2], grey[-2:], grey[:, :2], grey[:, -2:]):
            assert edge.min() > 250, picture.name


def test_captions_reach_the_report(pictures: list[Picture]) -> None:
    for picture in pictures:
        shown = figure(picture)
        assert shown.caption == f"Figure {picture.name[6]}. {picture.caption}"
        assert shown.description == picture.caption


def test_images_that_the_landscape_draws_are_counted(pictures: list[Picture]) -> None:
    for name in ("figure2-line", "figure5-plane"):
        assert "200 training images" in texts(by_name(pictures, name))
    assert "From sgd to the average" in texts(by_name(pictures, "figure6-flatness"))


# --- what is drawn, against the records ----------------------------------------------------


def xs(line: Line2D) -> NDArray[np.float64]:
    return np.atleast_1d(np.asarray(line.get_xdata(), dtype=float))


def ys(line: Line2D) -> NDArray[np.float64]:
    return np.atleast_1d(np.asarray(line.get_ydata(), dtype=float))


def labelled(ax: Axes) -> dict[str, NDArray[np.float64]]:
    """Lines with a name, as x and y, shape (2, K)."""
    lines = [line for line in ax.lines if not str(line.get_label()).startswith("_")]
    return {str(line.get_label()): np.stack([xs(line), ys(line)]) for line in lines}


def faint(ax: Axes) -> list[NDArray[np.float64]]:
    """The single seeds' or rays' curves behind the means, as y."""
    bundles = [each for each in ax.collections if isinstance(each, LineCollection)]
    paths = [path for bundle in bundles for path in bundle.get_paths()]
    return [np.asarray(path.vertices)[:, 1] for path in paths]


def among(wanted: NDArray[np.float64], found: Sequence[NDArray[np.float64]]) -> bool:
    return any(len(f) == len(wanted) and np.allclose(f, wanted, rtol=1e-9) for f in found)


def courses(
    store: RecordStore, name: str, predictor: Predictor, measure: str
) -> NDArray[np.float64]:
    """What a predictor measured on the test images, shape (seeds, epochs)."""
    rows = []
    for seed in (0, 1):
        history = record_of(store, name, seed).history
        own = [m for m in history if m.predictor == predictor and m.split == "test"]
        rows.append([getattr(m, measure) for m in sorted(own, key=lambda m: m.epoch)])
    return np.array(rows)


def check_curves(
    ax: Axes, store: RecordStore, measure: str, shown: dict[str, tuple[str, Predictor]]
) -> None:
    """Every line is the mean of its own runs' measurements, with each run's faint behind it."""
    lines = labelled(ax)
    assert lines.keys() == shown.keys()
    for label, (name, predictor) in shown.items():
        expected = courses(store, name, predictor, measure)
        np.testing.assert_allclose(lines[label], [[1, 2, 3], expected.mean(axis=0)], err_msg=label)
        assert all(among(course, faint(ax)) for course in expected)
    assert len(faint(ax)) == 2 * len(shown)


def test_figure_1_is_the_iterate_and_the_average_on_the_test_images(
    store: RecordStore, drawn: Mapping[str, Sequence[Axes]]
) -> None:
    left, right = drawn["figure1-average"]
    shown: dict[str, tuple[str, Predictor]] = {
        "swa-cyclical, iterate": ("swa-cyclical", "iterate"),
        "swa-cyclical, average": ("swa-cyclical", "average"),
    }
    check_curves(left, store, "accuracy", shown)
    check_curves(right, store, "loss", shown)
    # The band is of one standard deviation over seeds, the average's drawn last.
    average = courses(store, "swa-cyclical", "average", "accuracy")
    low, high = (average.mean(axis=0) + side * average.std(axis=0, ddof=1) for side in (-1, 1))
    edges = left.collections[-1].get_paths()[0].vertices
    for value in (*low, *high):
        assert np.isclose(np.asarray(edges)[:, 1], value).any()


def test_figure_3_is_periodic_swa_beside_the_same_without_phases(
    store: RecordStore, drawn: Mapping[str, Sequence[Axes]]
) -> None:
    (ax,) = drawn["figure3-phases"]
    shown: dict[str, tuple[str, Predictor]] = {
        "pswa, iterate": ("pswa", "iterate"),
        "swa-cyclical, average": ("swa-cyclical", "average"),
        "pswa, average": ("pswa", "average"),
    }
    check_curves(ax, store, "accuracy", shown)
    upright = [xs(line)[0] for line in ax.lines if np.ptp(xs(line)) == 0]
    assert upright == [1.5, 2.5]  # phases of an epoch each


def measured(store: RecordStore, part: Part, name: str | None = None) -> pd.DataFrame:
    """A part of the landscape at every seed that has it."""
    found = [(seed, store.find_landscape(part, seed)) for seed in (0, 1)]
    return pd.concat(record.tables[name or part].assign(seed=s) for s, record in found if record)


def check_slices(
    ax: Axes, table: pd.DataFrame, split: str, by: str, along: str, one: list[str]
) -> None:
    """Every line is the mean loss on its split; each seed's or ray's own is behind it."""
    own = table[table["split"] == split]
    lines = labelled(ax)
    assert lines.keys() == set(own[by])
    for name, line in lines.items():
        rows = own[own[by] == name]
        mean = rows.groupby(along)["loss"].mean()
        expected = np.stack([mean.index.to_numpy(float), mean.to_numpy(float)])
        np.testing.assert_allclose(line, expected, err_msg=name)
        for _, single in rows.groupby(one):
            assert among(single.sort_values(along)["loss"].to_numpy(), faint(ax))


def test_figure_2_is_the_line_on_each_split(
    store: RecordStore, drawn: Mapping[str, Sequence[Axes]]
) -> None:
    table = measured(store, "lines")
    for ax, split in zip(drawn["figure2-line"], ("train", "test"), strict=True):
        check_slices(ax, table, split, "end", "alpha", ["seed"])
        assert ax.get_title() == {"train": "200 training images", "test": "Test images"}[split]


def test_figure_5_is_the_plane_on_each_split(
    store: RecordStore, drawn: Mapping[str, Sequence[Axes]]
) -> None:
    grid, marks, paths = (measured(store, "plane", name) for name in ("grid", "marks", "paths"))
    for ax, split in zip(drawn["figure5-plane"][:2], ("train", "test"), strict=True):
        losses = grid[grid["split"] == split]["loss"]
        filled = next(c for c in ax.collections if isinstance(c, QuadContourSet))
        levels = np.asarray(filled.levels, dtype=float)
        np.testing.assert_allclose([levels[0], levels[-1]], [losses.min(), losses.max()])
        lines = labelled(ax)
        assert lines.keys() == {"sgd, iterate", "swa, iterate"}
        for label, line in lines.items():
            way = paths[paths["method"] == label.removesuffix(", iterate")].sort_values("epoch")
            np.testing.assert_allclose(line, way[["x", "y"]].T)
        stars = [line for line in ax.lines if line.get_marker() == "*"]
        np.testing.assert_allclose([xs(star)[0] for star in stars], marks["x"])
        np.testing.assert_allclose([ys(star)[0] for star in stars], marks["y"])
        assert [text.get_text() for text in ax.texts] == list(marks["method"])


def test_figure_6_is_rays_segments_and_sharpness(
    store: RecordStore, drawn: Mapping[str, Sequence[Axes]]
) -> None:
    left, middle, right = drawn["figure6-flatness"]
    rays = measured(store, "rays")
    by_seed = rays.groupby(["seed", "method", "split", "distance"])["loss"].mean()
    check_slices(left, by_seed.reset_index(), "train", "method", "distance", ["seed"])
    check_slices(middle, measured(store, "segments"), "test", "end", "alpha", ["seed"])
    sharp = measured(store, "sharpness")
    largest = sharp[sharp["epsilon"] == sharp["epsilon"].max()]
    names = [label.get_text() for label in right.get_yticklabels()]
    assert names == list(small_study().row_names)
    for y, name in enumerate(names):
        own = largest[largest["method"] == name]["sharpness"]
        ticks, mean = (xs(line) for line in right.lines if set(ys(line)) == {y})
        np.testing.assert_allclose(ticks, own)
        np.testing.assert_allclose(mean, own.mean())


def test_figure_7_is_average_and_iterate_of_the_same_runs(
    store: RecordStore, drawn: Mapping[str, Sequence[Axes]]
) -> None:
    left, right = drawn["figure7-rates"]
    runs = {0.005: "swa-rate-0.005", 0.05: "swa-rate-0.05"}

    def accuracies(predictor: Predictor) -> NDArray[np.float64]:
        records = [[record_of(store, run, seed) for seed in (0, 1)] for run in runs.values()]
        return np.array([[last_of(r, predictor, "test").accuracy for r in own] for own in records])

    values = {"iterate": accuracies("iterate"), "average": accuracies("average")}
    shown = {
        "swa, iterate": values["iterate"],
        "swa, average": values["average"],
        "average − iterate": values["average"] - values["iterate"],
    }
    found: dict[object, Any] = {c.get_label(): c for ax in (left, right) for c in ax.containers}
    assert found.keys() == shown.keys()
    for label, expected in shown.items():
        line, _, (bars,) = found[label].lines
        np.testing.assert_allclose(xs(line), list(runs))
        np.testing.assert_allclose(ys(line), expected.mean(axis=1))
        low, high = stats.ttest_1samp(expected, 0, axis=1).confidence_interval(0.8)
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends, np.stack([low, high], axis=1))
    decayed = [
        last_of(record_of(store, "sgd-multiplicative", seed), "iterate", "test").accuracy
        for seed in (0, 1)
    ]
    (level,) = (line for line in left.lines if line.get_label() == "sgd-multiplicative")
    np.testing.assert_allclose(ys(level), np.mean(decayed))


def test_the_forest_is_the_table_at_the_studys_confidence(
    store: RecordStore, drawn: Mapping[str, Sequence[Axes]]
) -> None:
    left, right = drawn["figure4-forest"]
    study = small_study()
    assert [label.get_text() for label in left.get_yticklabels()] == list(study.row_names)
    results = {
        name: np.array([last_of(record, record.result, "test").accuracy for record in records])
        for name in study.row_names
        for records in [[record_of(store, name, seed) for seed in (0, 1)]]
    }

    def on_row(ax: Axes, y: float) -> list[NDArray[np.float64]]:
        """All that is drawn at a height, as x."""
        return [xs(line) for line in ax.lines if set(ys(line)) == {y}]

    def check_interval(ax: Axes, y: int, values: NDArray[np.float64]) -> None:
        interval = stats.ttest_1samp(values, 0).confidence_interval(0.8)
        for expected in (values, np.array([*interval]), values.mean(keepdims=True)):
            assert among(expected, on_row(ax, y)), (y, expected)

    for y, name in enumerate(study.row_names):
        check_interval(left, y, results[name])
        paper, other = (study.row_method(n).paper_accuracy for n in (name, "sgd"))
        if paper is not None:
            assert among(np.array([paper]), on_row(left, y + 0.28))
        if name == "sgd":
            continue
        differences = results[name] - results["sgd"]
        check_interval(right, y, differences)
        if paper is not None and other is not None:
            assert among(np.array([paper - other]), on_row(right, y + 0.28))
        low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.8)
        words = f"{differences.mean():+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
        assert words in [text.get_text() for text in right.texts]
    legend = left.figure.legends[0]
    assert "mean, 80 % interval" in [text.get_text() for text in legend.get_texts()]


def test_a_method_looks_the_same_in_every_figure_and_like_no_other(
    drawn: Mapping[str, Sequence[Axes]],
) -> None:
    looks: dict[str, set[tuple[object, ...]]] = {}
    for name in ("figure1-average", "figure2-line", "figure3-phases", "figure6-flatness"):
        for ax in drawn[name]:
            for line in ax.lines:
                method, _, predictor = str(line.get_label()).partition(", ")
                if method in small_study().row_names and predictor != "iterate":
                    look = (line.get_color(), line.get_marker())
                    looks.setdefault(method, set()).add(look)
    assert looks.keys() == set(small_study().row_names)
    assert all(len(own) == 1 for own in looks.values())
    every = [look for own in looks.values() for look in own]
    for k in (0, 1):  # told apart by colour, and by marker where there is none
        assert len({look[k] for look in every}) == len(every)


# --- what is not there ---------------------------------------------------------------------


@pytest.mark.usefixtures("_words_alone")
def test_a_missing_run_is_noted_with_its_seed(tmp_path: Path) -> None:
    study = small_study()
    store = write_study(tmp_path, study, without=[("pswa", 1)])
    pictures = draw(study, store, [0, 1])
    for name in ("figure3-phases", "figure4-forest"):
        picture = by_name(pictures, name)
        assert picture.note == "INCOMPLETE: pswa lacks seeds 1."
        assert picture.note in texts(picture)
    assert by_name(pictures, "figure1-average").note == ""


# --- runs that diverged ----------------------------------------------------------------------


def drawn_with(
    results: Path, lost: Mapping[tuple[str, int], int]
) -> dict[str, tuple[Picture, Sequence[Axes]]]:
    """The figures of runs of which some diverged after an epoch."""
    study = small_study()
    store = write_study(results, study, diverged=lost)
    pictures, found = kept(lambda: draw(study, store, [0, 1]))
    made = [picture for picture in pictures if picture.content]
    return {p.name: (p, f.axes) for p, f in zip(made, found, strict=True)}


def test_curves_end_where_the_first_seed_diverged_and_the_legend_says_so(tmp_path: Path) -> None:
    picture, (ax,) = drawn_with(tmp_path, {("pswa", 1): 2})["figure3-phases"]
    assert picture.lacking == ""
    assert picture.note == ("pswa diverged at 1 of 2 seeds: means end where the first seed did.")
    lines = {str(line.get_label()): line for line in ax.lines}
    for predictor in ("iterate", "average"):
        mean = ys(lines[f"pswa, {predictor}\n(diverged: 1 of 2)"])
        assert np.isfinite(mean).tolist() == [True, False, False]
    assert np.isfinite(ys(lines["swa-cyclical, average"])).all()
    assert sorted(int(np.isfinite(of_seed).sum()) for of_seed in faint(ax)) == [1, 1, 3, 3, 3, 3]


def test_where_nothing_was_measured_before_a_run_diverged_there_is_no_mean(
    tmp_path: Path,
) -> None:
    lost = {("swa-cyclical", 0): 1, ("pswa", 0): 1, ("pswa", 1): 1}
    study = small_study()
    store = write_study(tmp_path, study, diverged=lost)
    pictures, found = kept(lambda: draw(study, store, [0, 1]))
    means = [line for line in found[0].axes[0].lines if "diverged" in str(line.get_label())]
    assert len(means) == 2
    assert np.isnan([ys(line) for line in means]).all()
    assert by_name(pictures, "figure3-phases").skipped == "pswa diverged at 2 of 2 seeds"


@pytest.mark.parametrize("name", ["swa", "sgd"])
def test_the_forest_leaves_a_row_out_that_diverged_and_says_so(tmp_path: Path, name: str) -> None:
    picture, (left, right) = drawn_with(tmp_path, {(name, 1): 2})["figure4-forest"]
    rows = [row for row in small_study().row_names if row != name]
    assert [label.get_text() for label in left.get_yticklabels()] == rows
    assert (picture.note, picture.lacking) == (f"{name} diverged at 1 of 2 seeds: left out.", "")
    others = [text.get_text() for text in right.texts if "reference" not in text.get_text()]
    assert len(others) == (0 if name == "sgd" else len(rows) - 1)  # sgd is the reference


def test_a_rate_at_which_runs_diverged_is_marked_by_a_cross_at_the_edge(tmp_path: Path) -> None:
    lost = {("swa-rate-0.05", 0): 1, ("swa-rate-0.05", 1): 1}
    picture, axes = drawn_with(tmp_path, lost)["figure7-rates"]
    for ax in axes:
        (cross,) = (line for line in ax.lines if line.get_label() == "diverged")
        assert (xs(cross).tolist(), ys(cross).tolist()) == ([0.05], [0.0])
        assert cross.get_transform() == ax.get_xaxis_transform()
        containers: list[Any] = ax.containers
        for container in containers:
            line, *_ = container.lines
            assert np.isfinite(ys(line)).tolist() == [True, False]
    assert picture.note.startswith("swa-rate-0.05 diverged at 2 of 2 seeds: a cross")
    assert picture.lacking == ""


@pytest.mark.usefixtures("_words_alone")
def test_a_landscape_that_was_not_measured_is_said_and_not_drawn(tmp_path: Path) -> None:
    study = small_study()
    store = write_study(tmp_path, study)
    plane = by_name(draw(study, store, [0, 1]), "figure5-plane")
    assert plane.content == {}
    assert "run `swabench landscape`" in plane.skipped


@pytest.mark.usefixtures("_words_alone")
def test_part_of_a_landscape_does_not_pass_for_all(tmp_path: Path) -> None:
    study = small_study()
    store = write_study(tmp_path, study)
    survey(study, store, [1], ["lines"])
    line = by_name(draw(study, store, [0, 1]), "figure2-line")
    assert line.note == "INCOMPLETE: not measured at seeds 0."
    assert line.note in texts(line)


@pytest.mark.usefixtures("_words_alone")
def test_a_study_without_averages_or_phases_skips_their_figures(tmp_path: Path) -> None:
    content = small_study().model_dump()
    content["methods"] = {"sgd": content["methods"]["sgd"]}
    content["rate_sweep"] = None
    content["claims"] = {}
    study = Study.model_validate(content)
    store = write_study(tmp_path, study)
    pictures = draw(study, store, [0, 1])
    assert [picture.name for picture in pictures if picture.content] == ["figure4-forest"]
    assert "averages over a cyclical rate" in by_name(pictures, "figure1-average").skipped
    assert "in phases" in by_name(pictures, "figure3-phases").skipped


@pytest.mark.usefixtures("_words_alone")
def test_one_seed_is_enough_to_draw(store: RecordStore) -> None:
    pictures = draw(small_study(), store, [0])
    assert all(picture.content for picture in pictures)
    assert "one seed" in by_name(pictures, "figure1-average").caption


def test_no_records_at_all_is_said_in_words(tmp_path: Path) -> None:
    study = small_study()
    with pytest.raises(InputError, match="no records of study"):
        draw(study, RecordStore(tmp_path, study), [0, 1])


def test_figure_3_compares_what_differs_in_its_phases_alone(tmp_path: Path) -> None:
    """Another plan on the same rate is another method."""
    whole = small_study().model_dump()
    rate = whole["methods"]["pswa"]["rate"]
    plan = {"plan": "exponential", "half_life_epochs": 1}
    methods = {**whole["methods"], "other": {"title": "", "rate": rate, "averaging": plan}}
    study = Study.model_validate({**whole, "methods": methods})
    picture = by_name(draw(study, write_study(tmp_path, study), [0, 1]), "figure3-phases")
    assert "swa-cyclical and pswa" in picture.caption


def test_figure_3_holds_periodic_swa_against_one_that_never_restarts(tmp_path: Path) -> None:
    """Another periodic one may stand before it."""
    whole = small_study().model_dump()
    pswa = whole["methods"].pop("pswa")
    methods = {"pswa": pswa, "again": {**pswa, "title": "again"}, **whole["methods"]}
    study = Study.model_validate({**whole, "methods": methods})
    picture = by_name(draw(study, write_study(tmp_path, study), [0, 1]), "figure3-phases")
    assert "of swa-cyclical and pswa (averages)" in picture.caption
