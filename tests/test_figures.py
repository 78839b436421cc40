"""Figures from made-up records: whole, vector, the same every time, honest about what lacks."""

import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from swabench.analysis import figures
from swabench.analysis.figures import DPI, HEIGHT, WIDTH, Picture, draw
from swabench.analysis.report import figure
from swabench.landscape.survey import missing_parts
from swabench.records import RecordStore
from swabench.study.study import Study
from swabench.system.errors import InputError
from swabench.training.learner import Split
from tests.made_up_runs import CLASSES, FEATURES, PROVENANCE, small_study, surveyor, write_runs

SVG = "{http://www.w3.org/2000/svg}"
NAMES = [
    "figure1-average",
    "figure2-line",
    "figure3-phases",
    "figure4-forest",
    "figure5-plane",
    "figure6-flatness",
]


def survey(store: RecordStore, study: Study, seeds: list[int]) -> None:
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(np.arange(60) % CLASSES)
    split = Split(torch.from_numpy(rng.standard_normal((60, FEATURES))), labels)
    measuring = surveyor(study, store, split)
    for part, seed in missing_parts(study, store, seeds):
        tables = measuring.measure(part, seed)
        store.write_landscape(part, seed, tables, provenance=PROVENANCE, environment={}, seconds=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    study = small_study()
    store = RecordStore(tmp_path_factory.mktemp("results"), study)
    write_runs(store, study)
    survey(store, study, [0, 1])
    return store


@pytest.fixture(scope="module")
def pictures(store: RecordStore) -> list[Picture]:
    return draw(small_study(), store, [0, 1])


@pytest.fixture
def _words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pixels, which take longest: for tests of what a figure says."""
    monkeypatch.setattr(figures, "FORMATS", ("svg",))


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


def test_the_same_records_give_the_same_bytes(store: RecordStore, pictures: list[Picture]) -> None:
    again = draw(small_study(), store, [0, 1])
    assert [picture.content for picture in again] == [picture.content for picture in pictures]
    assert b"<dc:date>" not in pictures[0].content["svg"]


def test_captions_reach_the_report(pictures: list[Picture]) -> None:
    for picture in pictures:
        shown = figure(picture.name, picture.content["svg"].decode())
        assert shown.caption == f"Figure {picture.name[6]}. {picture.caption}"
        assert shown.description == picture.caption


def test_images_that_the_landscape_draws_are_counted(pictures: list[Picture]) -> None:
    for name in ("figure2-line", "figure5-plane"):
        assert "2,000 training images" in texts(by_name(pictures, name))
    assert "From sgd to the average" in texts(by_name(pictures, "figure6-flatness"))


def test_the_forest_shows_the_tables_numbers(store: RecordStore, pictures: list[Picture]) -> None:
    accuracies = {}
    for name in ("sgd", "pswa"):
        records = [record for seed in (0, 1) if (record := store.find(name, seed))]
        accuracies[name] = [record.final(record.result, "test").accuracy for record in records]
    difference = np.mean(accuracies["pswa"]) - np.mean(accuracies["sgd"])
    shown = f"{difference:+.2f} [".replace("-", "−")
    assert any(text.startswith(shown) for text in texts(by_name(pictures, "figure4-forest")))


@pytest.mark.usefixtures("_words_alone")
def test_a_missing_run_is_noted_with_its_seed(tmp_path: Path) -> None:
    study = small_study()
    store = RecordStore(tmp_path, study)
    write_runs(store, study, skip=("pswa", 1))
    pictures = draw(study, store, [0, 1])
    for name in ("figure3-phases", "figure4-forest"):
        picture = by_name(pictures, name)
        assert picture.note == "INCOMPLETE: pswa lacks seeds 1."
        assert picture.note in texts(picture)
    assert by_name(pictures, "figure1-average").note == ""


@pytest.mark.usefixtures("_words_alone")
def test_a_landscape_that_was_not_measured_is_said_and_not_drawn(tmp_path: Path) -> None:
    study = small_study()
    store = RecordStore(tmp_path, study)
    write_runs(store, study)
    plane = by_name(draw(study, store, [0, 1]), "figure5-plane")
    assert plane.content == {}
    assert "run `swabench landscape`" in plane.skipped


@pytest.mark.usefixtures("_words_alone")
def test_part_of_a_landscape_does_not_pass_for_all(tmp_path: Path) -> None:
    study = small_study()
    store = RecordStore(tmp_path, study)
    write_runs(store, study)
    survey(store, study, [1])
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
    store = RecordStore(tmp_path, study)
    write_runs(store, study)
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
    with pytest.raises(InputError, match="holds no record"):
        draw(study, RecordStore(tmp_path, study), [0, 1])
