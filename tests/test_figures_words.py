"""What figures say and where they say it: captions, axes, marks, legends, notes, panels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy import stats

from swabench.analysis import figures
from swabench.analysis.figures import Picture, draw
from swabench.analysis.figures.inputs import FigureInputs
from swabench.analysis.figures.landscape import flatness
from swabench.analysis.figures.pieces import padded, spread
from swabench.analysis.frame import Records, collect
from swabench.analysis.surveys import Gathered, surveys
from swabench.records import RecordStore
from swabench.study.landscape import Part
from swabench.study.loading import load_study
from swabench.study.study import Study
from tests.made_up import Truth, last_of, record_of, small_study, survey, write_run, write_study
from tests.test_figures import made, made_of, store, ys

__all__ = ["made", "store"]  # fixtures

Made = Mapping[str, tuple[Picture, Figure]]


# --- names of what is shown ----------------------------------------------------------------------

SAID = {
    "figure1-average": [
        "Test accuracy and loss of the iterate of swa-cyclical and of its average after every "
        "epoch: mean over 2 seeds, band",
    ],
    "figure2-line": ["before (α = 0) and after (α = 1) fine-tuning: mean over 2 seeds, band"],
    "figure3-phases": [
        "Test accuracy after every epoch of swa-cyclical and pswa (averages) and of the iterate "
        "of pswa, which restarts from the average at each dotted line: mean over 2 seeds",
    ],
    "figure4-forest": [
        "its difference to sgd, paired by seed: means with 80 % t intervals, every seed, and the "
        "paper's numbers",
    ],
    "figure5-plane": [
        "the weights of adam, sgd, swa at seed 0 (stars)",
        "The iterates' paths, epoch by epoch, are projected onto the plane.",
    ],
    "figure6-flatness": [
        "Left: loss of 200 training images along random directions of unit norm",
        "mean over 2 of them, and each of 2 seeds shown faintly. Middle",
        "line from the weights of sgd to each average, and beyond both: mean, and each of 1 seeds.",
        "within a box of ε = 0.001 around the weights (Keskar et al.), mean and each of 2 seeds.",
    ],
    "figure7-rates": [
        "the iterate and of its average (swa) at every rate of the sweep",
        "means with 80 % t intervals over 2 seeds. The band is sgd-multiplicative, which decays",
    ],
}
AXES = {  # title, x, y
    "figure1-average": [
        ("", "Epoch of fine-tuning", "Test accuracy (%)"),
        ("", "Epoch of fine-tuning", "Test loss (nats)"),
    ],
    "figure2-line": [
        (
            "200 training images",
            "α:  w = before + α (after − before)",
            "Loss (nats, log scale)",
        ),
        ("Test images", "α:  w = before + α (after − before)", ""),
    ],
    "figure3-phases": [("", "Epoch of fine-tuning", "Test accuracy (%)")],
    "figure4-forest": [
        ("", "Test accuracy (%)", ""),
        ("", "Difference to sgd (points)", ""),
    ],
    "figure5-plane": [
        ("200 training images", "Along adam → sgd (weight units)", "Across (weight units)"),
        ("Test images", "Along adam → sgd (weight units)", ""),
        ("", "Loss (nats)", ""),
        ("", "Loss (nats)", ""),
    ],
    "figure6-flatness": [
        ("Along random rays", "Distance (weight units)", "Training loss (nats, log scale)"),
        ("From sgd to the average", "α:  sgd + α (average − sgd)", "Test loss (nats)"),
        ("In a box", "Sharpness (%)", ""),
    ],
    "figure7-rates": [
        ("", "Constant learning rate", "Test accuracy (%)"),
        ("", "Constant learning rate", "Average − iterate (points)"),
    ],
}
LEGENDS = {
    "figure1-average": ["swa-cyclical, iterate", "swa-cyclical, average"],
    "figure2-line": ["sgd", "swa", "swa-cyclical", "pswa"],
    "figure3-phases": ["pswa, iterate", "swa-cyclical, average", "pswa, average"],
    "figure4-forest": ["mean, 80 % interval", "each seed", "the paper's number"],
    "figure5-plane": ["sgd, iterate", "swa, iterate"],
    "figure6-flatness": ["adam", "sgd", "sgd-multiplicative", "swa", "swa-cyclical", "pswa"],
    "figure7-rates": ["sgd-multiplicative", "swa, iterate", "swa, average"],
}


@pytest.mark.parametrize("name", SAID)
def test_captions_axes_and_legends_name_what_is_shown(made: Made, name: str) -> None:
    picture, figure = made[name]
    for words in SAID[name]:
        assert words in picture.caption
    assert [(a.get_title(), a.get_xlabel(), a.get_ylabel()) for a in figure.axes] == AXES[name]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == LEGENDS[name]


def marked(ax: Axes) -> dict[str, float]:
    """Words on an axis, with where they stand along x."""
    return {text.get_text(): float(text.get_position()[0]) for text in ax.texts}


def test_marks_stand_where_their_weights_and_phases_are(made: Made) -> None:
    line, phases, flat = (
        made[name][1].axes for name in ("figure2-line", "figure3-phases", "figure6-flatness")
    )
    assert [marked(ax) for ax in line] == 2 * [{"before": 0, "after": 1}]
    # Three phases of an epoch each, whose middles are their epochs.
    assert marked(phases[0]) == {"phase 1": 1, "phase 2": 2, "phase 3": 3}
    assert phases[0].get_xlim() == (0.5, 3.5)
    assert marked(flat[1]) == {"sgd": 0, "average": 1}
    assert [ax.get_yscale() for ax in (*line, *flat)] == 3 * ["log"] + 2 * ["linear"]


def test_an_svg_carries_its_caption_and_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "FORMATS", ("svg",))
    study = small_study()
    lacking = write_study(tmp_path, study, without=[("pswa", 1)])
    picture = next(p for p in draw(study, lacking, [0, 1]) if p.name == "figure3-phases")
    assert picture.note
    root = ElementTree.fromstring(picture.content["svg"])
    purl = "{http://purl.org/dc/elements/1.1/}"
    title, description = (root.find(f".//{purl}{name}") for name in ("title", "description"))
    assert title is not None
    assert description is not None
    assert title.text == picture.caption
    assert description.text == f"{picture.caption} {picture.note}"


# --- curves --------------------------------------------------------------------------------------


def test_a_spread_is_of_the_mean_and_one_deviation() -> None:
    """Of three columns, whose median is not their mean."""
    curves = pd.DataFrame({0: [1.0, 5.0], 1: [2.0, 6.0], 2: [6.0, 7.0]}, index=[1, 2])
    ax = Figure().subplots()
    spread(ax, curves, {"color": "black"}, "all")
    (mean,) = (line for line in ax.lines if line.get_label() == "all")
    np.testing.assert_allclose(ys(mean), [3, 6])
    edges = np.asarray(ax.collections[-1].get_paths()[0].vertices)[:, 1]
    deviation = np.std([1, 2, 6], ddof=1)
    for value in (3 - deviation, 3 + deviation, 5, 7):
        assert np.isclose(edges, value).any()


def test_a_curve_with_a_point_every_few_epochs_says_so(tmp_path: Path) -> None:
    content = small_study().model_dump()
    content["finetune"]["score_every_epochs"] = 2
    study = Study.model_validate(content)
    found = made_of(study, write_study(tmp_path, study), [0, 1])
    for name in ("figure1-average", "figure3-phases"):
        assert "after every 2 epochs" in found[name][0].caption


def test_one_point_is_no_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FORMATS", ())
    whole = Records.course
    monkeypatch.setattr(Records, "course", lambda *of: whole(*of).tail(1))
    study = small_study()
    pictures = {p.name: p for p in draw(study, write_study(tmp_path, study), [0, 1])}
    for name in ("figure1-average", "figure3-phases"):
        assert pictures[name].skipped.startswith("runs were measured after one epoch alone")


def with_methods(*names: str) -> Study:
    """The small study with some of its methods, in this order."""
    content = small_study().model_dump()
    content["methods"] = {name: content["methods"][name] for name in names}
    return Study.model_validate({**content, "rate_sweep": None, "claims": {}})


def test_figure_1_is_of_the_first_cyclical_average_of_one_phase(tmp_path: Path) -> None:
    study = with_methods("sgd", "pswa", "swa", "swa-cyclical")
    found = made_of(study, write_study(tmp_path, study), [0, 1])
    assert "iterate of swa-cyclical" in found["figure1-average"][0].caption


def test_figure_3_falls_back_on_any_average_of_one_phase(tmp_path: Path) -> None:
    study = with_methods("sgd", "pswa", "swa")
    found = made_of(study, write_study(tmp_path, study), [0, 1])
    assert "of swa and pswa (averages)" in found["figure3-phases"][0].caption


def test_figure_3_leaves_out_another_number_of_phases(tmp_path: Path) -> None:
    content = small_study().model_dump()
    content["finetune"]["epochs"] = 6
    pswa = content["methods"]["pswa"]
    content["methods"]["pswa-2"] = {**pswa, "averaging": {**pswa["averaging"], "phases": 2}}
    study = Study.model_validate(content)
    found = made_of(study, write_study(tmp_path, study), [0, 1])
    assert "of swa-cyclical and pswa (averages)" in found["figure3-phases"][0].caption


def test_every_method_of_a_figure_of_curves_is_missed_there(tmp_path: Path) -> None:
    study = small_study()
    lacking = write_study(tmp_path, study, without=[("swa-cyclical", 1)])
    found = made_of(study, lacking, [0, 1])
    note = "INCOMPLETE: swa-cyclical lacks seeds 1."
    for name in ("figure1-average", "figure3-phases", "figure4-forest"):
        assert found[name][0].note == note


# --- the forest ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("accuracy", "marker"), [(80.0, "<"), (99.0, ">")])
def test_pretraining_far_off_is_a_triangle_at_its_edge_of_the_axis(
    tmp_path: Path, accuracy: float, marker: str
) -> None:
    """The axis is for the tuned rows, the paper's numbers and none."""
    study = small_study()
    far = write_study(tmp_path, study, {"adam": Truth(accuracy=accuracy)})
    _, right = made_of(study, far, [0, 1])["figure4-forest"][1].axes
    results = {
        name: np.array(
            [
                last_of(r, r.result, "test").accuracy
                for r in (record_of(far, name, s) for s in (0, 1))
            ]
        )
        for name in study.row_names
    }
    gaps = {name: found - results["sgd"] for name, found in results.items() if name != "sgd"}
    papers = {name: study.methods[name].paper_accuracy for name in study.methods}
    own = papers["sgd"]
    assert own is not None
    shown = [0.0, *(p - own for p in papers.values() if p is not None)]
    shown += [gap for name, found in gaps.items() if name != "adam" for gap in found]
    low, high = right.get_xlim()
    reach = max(shown) - min(shown)
    assert low == pytest.approx(min(shown) - 0.08 * reach)
    assert high == pytest.approx(max(shown) + 0.08 * reach)
    on_row = [line for line in right.lines if set(ys(line)) == {0.0}]
    (triangle,) = on_row
    assert triangle.get_marker() == marker
    edge = low if marker == "<" else high
    np.testing.assert_allclose(np.asarray(triangle.get_xdata(), dtype=float), [edge])
    # Its value is beside its row, as every other's.
    told = {text.get_position()[1]: text.get_text() for text in right.texts}
    assert told[0].startswith(f"{gaps['adam'].mean():+.2f} [".replace("-", "−"))
    for y, name in enumerate(study.row_names):
        mean = "  reference" if name == "sgd" else f"{gaps[name].mean():+.2f} ["
        assert told[y].startswith(mean.replace("-", "−"))


def test_a_forest_without_the_papers_numbers_speaks_of_none(tmp_path: Path) -> None:
    study = load_study("smoke")
    picture, figure = made_of(study, write_study(tmp_path, study), [0, 1])["figure4-forest"]
    assert "95 % t intervals and every seed. A triangle" in picture.caption
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["mean, 95 % interval", "each seed"]


def test_a_forest_pairs_what_is_there_and_keeps_the_place_of_what_is_not(tmp_path: Path) -> None:
    study = small_study()
    lacking = write_study(tmp_path, study, without=[("sgd", 1), ("swa", 0), ("swa", 1)])
    picture, figure = made_of(study, lacking, [0, 1])["figure4-forest"]
    assert picture.note == "INCOMPLETE: sgd lacks seeds 1; swa lacks seeds 0, 1."
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == list(study.row_names)
    told = {text.get_position()[1]: text.get_text() for text in right.texts}
    swa, pswa = (study.row_names.index(name) for name in ("swa", "pswa"))
    assert swa not in told
    # One pair has no interval.
    own, other = (
        last_of(record, record.result, "test").accuracy
        for record in (record_of(lacking, name, 0) for name in ("pswa", "sgd"))
    )
    assert told[pswa] == f"{own - other:+.2f}".replace("-", "−")


def test_an_axis_leaves_a_margin_around_what_is_known() -> None:
    assert padded([1.0, np.nan, 3.0]) == pytest.approx((0.84, 3.16))
    assert padded([0.0, 0.0]) == pytest.approx((-0.08, 0.08))


# --- the landscape -------------------------------------------------------------------------------


def test_the_plane_is_drawn_at_its_own_seed_the_right_way_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first seed that has it; what is missing is said."""
    study = small_study(plane={"points": 4, "seeds": 2})
    store = write_study(tmp_path, study)
    survey(study, store, [1], ["plane"])
    filled: list[tuple[tuple[NDArray[Any], ...], QuadContourSet]] = []
    contourf = Axes.contourf

    def noted(self: Axes, *given: Any, **options: Any) -> Any:
        found = contourf(self, *given, **options)
        filled.append((given, found))
        return found

    monkeypatch.setattr(Axes, "contourf", noted)
    picture, _ = made_of(study, store, [0, 1])["figure5-plane"]
    assert "at seed 1 (stars)" in picture.caption
    assert picture.note == "INCOMPLETE: not measured at seeds 0."
    found = store.find_landscape("plane", 1)
    assert found is not None
    grid = found.tables["grid"]
    for split, ((x, y, losses), contours) in zip(("train", "test"), filled, strict=True):
        own = grid[grid["split"] == split].set_index(["x", "y"])["loss"]
        assert losses.shape == (len(y), len(x)) == (4, 4)
        levels = np.diff(np.asarray(contours.levels, dtype=float))
        assert (np.diff(levels) > 0).all()  # closer together near the minimum
        for (i, up), (k, along) in ((i, k) for i in enumerate(y) for k in enumerate(x)):
            assert losses[i, k] == own[along, up]


def test_figure_2_counts_the_seeds_that_were_measured(tmp_path: Path) -> None:
    study = small_study()
    store = write_study(tmp_path, study)
    survey(study, store, [1], ["lines"])
    picture, _ = made_of(study, store, [0, 1])["figure2-line"]
    assert picture.caption.endswith("fine-tuning: one seed.")


def test_figure_2_has_no_band_where_it_would_reach_below_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a logarithmic axis, for seeds that lie decades apart; each decade has a tick."""
    study = small_study()
    store = write_study(tmp_path, study)
    survey(study, store, [0, 1], ["lines"])
    measured = FigureInputs.landscape

    def decades_apart(inputs: FigureInputs, part: Part) -> Gathered:
        found = measured(inputs, part)
        lines = found.tables["lines"]
        lines["loss"] *= np.where(lines["seed"] == 1, 1e4, 1)
        return found

    monkeypatch.setattr(FigureInputs, "landscape", decades_apart)
    picture, figure = made_of(study, store, [0, 1])["figure2-line"]
    assert picture.caption.endswith("fine-tuning: mean over 2 seeds, each seed shown faintly.")
    assert not [c for ax in figure.axes for c in ax.collections if isinstance(c, PolyCollection)]
    figure.canvas.draw()
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert {"1", "10", "100"} <= set(labels)
    assert len(set(labels)) == len(labels)


def test_what_is_missing_of_every_part_of_figure_6_is_said_once(tmp_path: Path) -> None:
    study = small_study(segments={"points": 7, "seeds": 2, "low": -1, "high": 2})
    store = write_study(tmp_path, study)
    survey(study, store, [0], ["rays", "segments"])
    survey(study, store, [1], ["sharpness"])
    picture, _ = made_of(study, store, [0, 1])["figure6-flatness"]
    one, other = (f"INCOMPLETE: not measured at seeds {seed}." for seed in (1, 0))
    assert picture.note == f"{one} {other}"
    assert "each of 1 seeds shown faintly" in picture.caption


def test_rays_of_a_network_are_measured_by_its_filters(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study()
    records = collect(study, store, [0, 1], study.run_names)
    heads = FigureInputs(study, [0, 1], records, surveys(study, store, [0, 1]))
    parts = {part: heads.landscape(part) for part in ("rays", "segments", "sharpness")}
    monkeypatch.setattr(FigureInputs, "landscape", lambda _, part: parts[part])
    for trainable in ("layer4", "all"):
        stage = study.finetune.model_copy(update={"trainable": trainable})
        network = study.model_copy(update={"finetune": stage})
        figure, caption, *_ = flatness(replace(heads, study=network))
        assert "along random directions, filter-normalised (Li et al.), the same" in caption
        assert figure.axes[0].get_xlabel() == "Distance (filter norms)"


def images(
    data: Mapping[str, Any], drawn: int, tested: int | None, name: str = "mnist"
) -> Sequence[str]:
    """What the splits of a landscape are called."""
    content = load_study(name).model_dump()
    content["data"] |= data
    content["landscape"] |= {"training_images": drawn, "test_images": tested}
    study = Study.model_validate(content)
    none: Any = None
    return list(FigureInputs(study, [], none, []).splits.values())


def test_a_rate_that_falls_is_no_cyclical_one() -> None:
    content = load_study("smoke").model_dump()
    cosine = {"schedule": "cosine", "learning_rate": 0.01}
    first = {"falling": {**content["methods"]["swa"], "rate": cosine}}
    study = Study.model_validate({**content, "methods": {**first, **content["methods"]}})
    none: Any = None
    inputs = FigureInputs(study, [], none, [])
    assert inputs.averaging(cyclical=True) == "swa-cyclical"
    assert inputs.averaging(cyclical=False) == "falling"


def test_the_landscapes_images_are_as_many_as_there_are(tmp_path: Path) -> None:
    """Those that it draws, unless there are fewer; those of a folder are not counted."""
    assert images({}, 2000, None) == ["2,000 training images", "Test images"]
    assert images({}, 2000, 1500) == ["2,000 training images", "1,500 test images"]
    # MNIST's 60,000 less 5,000 that validate.
    assert images({}, 60_000, None)[0] == "55,000 training images"
    fewer = {"training_images": 700}
    assert images(fewer, 2000, None)[0] == "700 training images"
    assert images(fewer, 600, None)[0] == "600 training images"
    folder = {"dataset": "folder", "folder": tmp_path}
    assert images(folder, 2000, None)[0] == "Training images"


# --- the rate sweep ------------------------------------------------------------------------------


def swept(rates: Sequence[float], **changes: Any) -> Study:
    sweep = {"methods": ["sgd", "swa"], "rates": rates}
    content = small_study().model_dump()
    return Study.model_validate({**content, "rate_sweep": sweep, **changes})


def test_figure_7_goes_from_the_lowest_rate_whatever_the_sweeps_order(tmp_path: Path) -> None:
    study = swept([0.05, 0.00125, 0.02])
    write_study(tmp_path, study)
    picture, figure = made_of(study, RecordStore(tmp_path, study), [0, 1])["figure7-rates"]
    left, right = figure.axes
    for ax in (left, right):
        assert [label.get_text() for label in ax.get_xticklabels()] == ["0.00125", "0.02", "0.05"]
        assert list(ax.get_xticks()) == [0.00125, 0.02, 0.05]
        assert ax.get_xscale() == "log"
        for curve in (container[0] for container in ax.containers):
            assert list(curve.get_xdata()) == [0.00125, 0.02, 0.05]
    assert "over 2 seeds" in picture.caption


def test_the_band_of_figure_7_is_the_interval_of_the_decayed_rate(
    store: RecordStore, made: Made
) -> None:
    left = made["figure7-rates"][1].axes[0]
    records = [record_of(store, "sgd-multiplicative", seed) for seed in (0, 1)]
    values = [last_of(record, "iterate", "test").accuracy for record in records]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.8)
    (band,) = left.patches
    assert isinstance(band, Rectangle)
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((low, high))


def test_figure_7_without_a_decayed_rate_speaks_of_no_band(tmp_path: Path) -> None:
    study = swept([0.005, 0.05])
    kept = study.claims.decayed
    lacking = write_study(tmp_path, study, without=[(kept, 0), (kept, 1)])
    picture, figure = made_of(study, lacking, [0, 1])["figure7-rates"]
    assert "band" not in picture.caption
    assert not figure.axes[0].patches
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["swa, iterate", "swa, average"]


def test_a_sweep_without_averages_or_without_runs_is_skipped_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "FORMATS", ())
    alone = swept([0.005, 0.05], rate_sweep={"methods": ["sgd"], "rates": [0.005, 0.05]})
    both = swept([0.005, 0.05])
    for study, words in (
        (alone, "the study sweeps no averaging method's rate"),
        (both, "there is no run of swa in the rate sweep"),
    ):
        folder = tmp_path / words[:5]
        one = RecordStore(folder, study)
        write_run(one, study, "sgd", 0)
        picture = next(p for p in draw(study, one, [0]) if p.name == "figure7-rates")
        assert picture.skipped == words
