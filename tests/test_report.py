"""The report: whole in itself, true to the records, the same each time."""

import base64
import itertools
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest

from swabench.analysis import report
from swabench.analysis.claims import decide_claims
from swabench.analysis.table import collect, ensembles, not_distinguished, standings
from swabench.records import RecordStore
from swabench.study.study import Study
from tests.synthetic import Truth, study_with, write_study

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:dc="http://purl.org/dc/elements/1.1/">'
    "<metadata><dc:title>{title}</dc:title><dc:description>{about}</dc:description></metadata>"
    '<path id="a" d="M0 0"/></svg>'
)
FIGURES = {
    "figure-1-curves": SVG.format(title="The curves", about="One line falls."),
    "figure-2-line": SVG.format(title="The line", about="A valley."),
}
TRUTHS = {
    "adam": Truth(accuracy=92, loss=0.28),
    "swa": Truth(accuracy=93.6),
    "swa-cyclical": Truth(accuracy=93.01, spread=0.2),
}
LOADING = {"src", "href", "srcset", "data", "poster", "action", "background", "xlink:href"}


class Page(HTMLParser):
    """What a test asks of a page: its tags, what it would load, its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in {"meta", "img", "br", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def store_of(folder: Path, study: Study, **options: object) -> RecordStore:
    return write_study(folder, study, TRUTHS, **options)  # type: ignore[arg-type]


def rendered(
    study: Study, store: RecordStore, figures: Mapping[str, str] = FIGURES, seeds: int = 8
) -> str:
    numbers = list(range(seeds))
    records = collect(study, store, numbers, study.run_names)
    claims = decide_claims(study, records, numbers)
    return report.render_report(study, records, numbers, claims, figures)


@pytest.fixture(scope="module")
def study() -> Study:
    return study_with(8, rate_sweep=None)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, study: Study) -> RecordStore:
    return store_of(tmp_path_factory.mktemp("results"), study)


@pytest.fixture(scope="module")
def text(study: Study, store: RecordStore) -> str:
    return rendered(study, store)


def test_loads_nothing_and_runs_nothing(text: str) -> None:
    page = Page(text)
    assert not page.open
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {t for t, _ in page.tags}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in LOADING & attributes.keys():
            assert re.match(r"#|data:image/svg\+xml;base64,", attributes[name])
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_shows_every_figure_with_its_words(text: str) -> None:
    page = Page(text)
    images = page.all("img")
    prefix = "data:image/svg+xml;base64,"
    shown = [base64.b64decode(i["src"].removeprefix(prefix)).decode() for i in images]
    assert shown == list(FIGURES.values())
    assert [image["alt"] for image in images] == ["One line falls.", "A valley."]
    assert "Figure 1. The curves" in page.words
    assert len(page.all("figure")) == len(page.all("figcaption")) == 2


def test_says_so_where_no_figure_is_drawn(study: Study, store: RecordStore) -> None:
    assert "No figures have been drawn" in Page(rendered(study, store, {})).words


def test_figures_without_metadata_are_named_by_their_file() -> None:
    bare = report.figure("loss-plane", '<svg xmlns="http://www.w3.org/2000/svg"/>')
    assert bare.caption == bare.description == "Loss plane"
    numbered = report.figure("figure5-plane", '<svg xmlns="http://www.w3.org/2000/svg"/>')
    assert numbered.caption == "Figure 5. Plane"


def test_is_the_same_for_the_same_records(study: Study, store: RecordStore, text: str) -> None:
    assert rendered(study, store) == text


def test_can_be_read_without_eyes(text: str) -> None:
    page = Page(text)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes.get("scope") in {"col", "row"} for attributes in page.all("th"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    assert {a["aria-labelledby"] for a in page.all("section")} <= set(ids)


def test_tells_what_was_found(study: Study, store: RecordStore, text: str) -> None:
    words = Page(text).words
    assert "that every fine-tuning is better than Adam alone (C1)" in words
    assert "The paper's claim is contradicted that SWA and tuned SGD are extremely close (C2)" in (
        words
    )
    assert "Not measured is whether SWA's minimum is as wide as SGD's (C4)" in words
    records = collect(study, store, range(8))
    found = standings(study, records)
    assert found["adam"] == "below"
    assert found["swa"] == "above"
    assert found["swa-cyclical"] == "not distinguished"
    assert "Above sgd, beyond what chance explains after Holm's correction: swa (+0.6" in words
    lines = not_distinguished(study, records)
    assert any(re.match(r"swa-cyclical is not disting.* about \d+ would tell", x) for x in lines)
    assert all(report.typeset(line) in words for line in lines)


def test_rows_are_told_apart_after_holms_correction(tmp_path: Path) -> None:
    # With six seeds the sign-flip test reaches 2/64: enough for one row, too much for five.
    study = study_with(6, rate_sweep=None)
    records = collect(study, store_of(tmp_path, study), range(6))
    assert set(standings(study, records).values()) == {"not distinguished"}
    lines = not_distinguished(study, records)
    assert any(line.startswith("adam") and "takes 8 here); about 8 would" in line for line in lines)
    pair = {name: records[name] for name in ("sgd", "adam")}
    assert standings(study, pair) == {"adam": "below"}


def test_a_missing_run_is_told_first(tmp_path: Path, study: Study) -> None:
    words = Page(rendered(study, store_of(tmp_path, study, without=[("swa", 5)]))).words
    assert "INCOMPLETE: swa lacks seeds 5." in words
    assert words.index("INCOMPLETE") < words.index("Before fine-tuning")


def test_words_from_a_study_are_only_words(tmp_path: Path) -> None:
    study = study_with(2, rate_sweep=None, title="<script>alert('x')</script> & more")
    text = rendered(study, store_of(tmp_path, study), seeds=2)
    assert "<script" not in text
    assert "alert('x')</script> & more" in Page(text).words


def test_numbers_are_set_with_a_minus_and_do_not_break() -> None:
    assert report.typeset("-0.5 [-0.6, -0.4]") == "−0.5 [−0.6,\u00a0−0.4]"
    assert report.typeset("swa-cyclical-2, 2023-01") == "swa-cyclical-2, 2023-01"


def test_the_ensemble_stands_beside_the_average(study: Study, tmp_path: Path) -> None:
    store = write_study(tmp_path, study, {"swa": Truth(ensemble_gap=0.25, ensemble_loss_gap=0.01)})
    frame = ensembles(study, collect(study, store, range(8))).set_index("method")
    assert list(frame.index) == ["swa", "swa-cyclical", "pswa"]
    assert frame.loc["swa", "accuracy_difference"] == pytest.approx(0.25)
    assert frame.loc["swa", "loss_difference"] == pytest.approx(-0.01)
    assert frame.loc["pswa", "accuracy_difference"] == pytest.approx(0)
    assert (frame["seeds"] == 8).all()
