"""The report: whole in itself, true to the records, the same each time."""

import base64
import html
import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from swabench.analysis import claims_text, report
from swabench.analysis import table as tables
from swabench.analysis.claims import decide_claims
from swabench.analysis.evidence import Verdict
from swabench.analysis.figures import Picture
from swabench.analysis.frame import Records, collect
from swabench.analysis.statistics import detectable_difference
from swabench.analysis.table import ensembles, not_distinguished, standings
from swabench.analysis.words import what_was_run
from swabench.records import RecordStore
from swabench.study.study import Study
from swabench.system.version import __version__
from tests.made_up import (
    ENVIRONMENT,
    PROVENANCE,
    Truth,
    last_of,
    record_of,
    study_with,
    the_controls,
    write_run,
    write_study,
)

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><path id="a" d="M0 0"/></svg>'
PICTURES = [
    Picture("figure1-curves", "The curves: one line falls.", {"svg": SVG}),
    Picture("figure2-line", "", {}, skipped="nothing was measured"),
    Picture("figure3-plane", "A valley.", {"svg": SVG + b" "}, note="INCOMPLETE: no walls."),
]
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
        self.tables: list[list[list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in {"meta", "img", "br", "link"}:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def store_of(folder: Path, study: Study, **options: object) -> RecordStore:
    return write_study(folder, study, TRUTHS, **options)  # type: ignore[arg-type]


def results(store: RecordStore, name: str, measure: str = "accuracy") -> list[float]:
    """What a method reached on the test images at each of eight seeds."""
    records = [record_of(store, name, seed) for seed in range(8)]
    return [getattr(last_of(record, record.result, "test"), measure) for record in records]


def rendered(
    study: Study, store: RecordStore, pictures: Sequence[Picture] = PICTURES, seeds: int = 8
) -> str:
    numbers = list(range(seeds))
    records = collect(study, store, numbers, study.run_names)
    claims = decide_claims(study, records, numbers)
    return report.render_report(study, records, numbers, claims, pictures)


@pytest.fixture(scope="module")
def study() -> Study:
    return study_with(8, rate_sweep=None)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, study: Study) -> RecordStore:
    return store_of(tmp_path_factory.mktemp("results"), study)


@pytest.fixture(scope="module")
def text(study: Study, store: RecordStore) -> str:
    return rendered(study, store)


def test_says_below_the_table_what_its_seeds_draw(text: str, study: Study) -> None:
    words = Page(text).words
    assert study.draws_in_words in words[words.index("The table") : words.rindex("Figures")]
    assert "; one split and one backbone serve all seeds." in words


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
    shown = [base64.b64decode(i["src"].removeprefix(prefix)) for i in images]
    assert shown == [SVG, SVG + b" "]
    assert [image["alt"] for image in images] == [
        "The curves: one line falls.",
        "A valley. INCOMPLETE: no walls.",
    ]
    assert "Figure 1. The curves: one line falls." in page.words
    assert "Figure 3. A valley." in page.words
    assert len(page.all("figure")) == len(page.all("figcaption")) == 2


def test_the_picture_of_what_averaging_does_comes_first(study: Study, store: RecordStore) -> None:
    pictures = [*PICTURES, Picture("figure7-rates", "What averaging does.", {"svg": SVG})]
    words = Page(rendered(study, store, pictures)).words
    captions = re.findall(r"Figure (\d)\. ", words[words.rindex("Figures") :])
    assert captions == ["7", "1", "3"]


def test_says_so_where_no_figure_is_drawn(study: Study, store: RecordStore) -> None:
    assert "No figures have been drawn" in Page(rendered(study, store, [])).words


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
    assert "Supported: every fine-tuning is better than Adam alone (C1)" in words
    assert "Contradicted: SWA and tuned SGD are extremely close (C2)" in words
    assert "Not measured: SWA's minimum is as wide as SGD's (C4)" in words
    records = collect(study, store, range(8))
    found = standings(study, records)
    assert found["adam"] == "below"
    assert found["swa"] == "above"
    assert found["swa-cyclical"] == "not distinguished"
    gain = np.mean([results(store, "swa")[s] - results(store, "sgd")[s] for s in range(8)])
    assert f"beyond what chance explains after Holm's correction: swa ({gain:+.2f} points)" in words
    lines = not_distinguished(study, records)
    assert any(
        re.match(r"swa-cyclical is not disting.* points would be found with", x) for x in lines
    )
    assert all(report.typeset(line) in words for line in lines)


def test_finds_in_order_where_every_row_stands_and_what_becomes_of_every_claim(
    study: Study, store: RecordStore
) -> None:
    rows = collect(study, store, range(8))
    means = {name: np.mean(results(store, name)) for name in study.row_names}
    found = standings(study, rows)

    def those(standing: str) -> str:
        """The rows of a standing with their differences, as a list in a sentence."""
        names = [name for name, own in found.items() if own == standing]
        shown = [f"{name} ({means[name] - means['sgd']:+.2f} points)" for name in names]
        return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))

    claims = decide_claims(study, rows, range(8))
    verdicts: list[Verdict] = ["supported", "contradicted", "equal", "open", "not measured"]
    decided = [replace(claim, verdict=v) for claim, v in zip(claims[:5], verdicts, strict=True)]
    said = report.findings(study, rows, decided)
    assert len(said) == 2 + 3 + 5
    assert said[2:5] == [
        "Above sgd, beyond what chance explains after Holm's correction: " + those("above") + ".",
        f"Below sgd, by the same test: {those('below')}.",
        f"Not distinguished from sgd: {those('not distinguished')}.",
    ]
    openings = (
        "Supported",
        "Contradicted",
        "No difference beyond the margin, so neither supported nor contradicted",
        "Open with these seeds",
        "Not measured",
    )
    assert said[5:] == [
        f"{opening}: {claim.statement} ({claim.key})."
        for opening, claim in zip(openings, decided, strict=True)
    ]


def test_says_what_was_run_on_how_many_seeds_by_which_settings(
    study: Study, store: RecordStore, text: str
) -> None:
    words = Page(text).words
    assert report.typeset(what_was_run(study)) in words
    assert f"Made by swabench {__version__} from records alone." in words
    settings = re.search(r"<pre>(.*?)</pre>", text, re.S)
    assert settings is not None
    assert yaml.safe_load(html.unescape(settings[1])) == study.model_dump(mode="json")
    some = Page(rendered(study, store, seeds=3)).words
    for found, seeds in ((words, 8), (some, 3)):
        assert (
            "Study mnist: Adam alone, not fine-tuned, 5 epochs; then 5 ways of fine-tuning, "
            f"15 epochs each, on {seeds} seeds." in found
        )


def test_the_sweeps_runs_stand_among_average_less_iterate(tmp_path: Path) -> None:
    study = study_with(2, rate_sweep={"methods": ["sgd", "swa"], "rates": [0.005, 0.02]})
    store = write_study(tmp_path, study)
    shown = Page(rendered(study, store, [], seeds=2)).tables[1]
    assert [row[:2] for row in shown[1:]] == [
        ["swa-rate-0.005", "0.005"],
        ["swa", "0.01"],
        ["swa-rate-0.02", "0.02"],
        ["swa-cyclical", "—"],
        ["pswa", "—"],
    ]


def test_what_was_not_kept_has_no_table(study: Study, store: RecordStore) -> None:
    """Averages without ensembles, and iterates without averages."""

    def only(*predictors: str) -> list[str]:
        kept = {
            name: {
                seed: replace(
                    record, history=tuple(m for m in record.history if m.predictor in predictors)
                )
                for seed, record in found.items()
            }
            for name, found in collect(study, store, range(8), study.run_names).items()
        }
        page = Page(report.render_report(study, Records(kept), range(8), [], []))
        return [table[0][0] for table in page.tables if table[0]]

    assert only("iterate", "average", "ensemble")[:3] == ["Method", "Run", "Method"]
    assert only("iterate", "average").count("Method") == 1
    assert only("iterate", "average").count("Run") == 1
    assert only("iterate").count("Run") == 0


def test_every_backbone_that_seeds_draw_is_named(tmp_path: Path) -> None:
    study = study_with(2, rate_sweep=None, seed_draws=["head", "backbone"])
    store = RecordStore(tmp_path, study)
    for seed in (0, 1):
        provenance = {**PROVENANCE, "backbone": f"digest {seed}"}
        for name in study.row_names:
            write_run(store, study, name, seed, provenance=provenance)
    manifest = dict(Page(rendered(study, store, [], seeds=2)).tables[-1])
    assert manifest["Backbone"] == "digest 0; digest 1"


def cells(frame: pd.DataFrame) -> list[list[str]]:
    """A data frame as the page must show it."""
    rows = [list(frame.columns), *frame.to_numpy().tolist()]
    return [[report.typeset(value) for value in row] for row in rows]


def test_shows_the_whole_table_and_all_of_every_claim(store: RecordStore) -> None:
    """At a confidence and a level of its own, which every number must follow."""
    study = study_with(8, rate_sweep=None, confidence=0.8, claims={"alpha": 0.02})
    records = collect(study, store, range(8), study.run_names)
    rows = collect(study, store, range(8))
    claims = decide_claims(study, records, range(8))
    page = Page(report.render_report(study, records, range(8), claims, []))
    shown = [
        tables.presentable(tables.comparison(study, rows), study),
        tables.presentable_trajectories(tables.on_one_trajectory(study, records), study),
        tables.presentable_ensembles(ensembles(study, rows), study),
        claims_text.verdicts(claims, study),
        *(claims_text.presentable_evidence(claim, study) for claim in claims if claim.evidence),
    ]
    expected = [cells(frame) for frame in shown]
    assert [[[c.strip() for c in row] for row in t] for t in page.tables[:-1]] == expected
    assert (
        len([frame for frame in shown if any("[80 %]" in str(c) for c in frame)]) == len(shown) - 1
    )
    assert [claim.key for claim in claims] == [f"C{k}" for k in range(1, 9)]
    for claim, after in itertools.pairwise([*claims, None]):
        assert claim is not None
        end = f"{after.key}: {after.question}" if after else "Reading the paper"
        section = page.words.split(f"{claim.key}: {claim.question}")[1].split(end)[0]
        for words in (claims_text.in_words(claim.verdict, study), claim.reason, claim.rule):
            assert report.typeset(words) in section
        for note in claim.notes:
            assert report.typeset(note) in section
    assert "The paired t test decides, at a level of 0.02" in page.words
    assert "a softmax regression, which is a convex problem" in page.words


def test_names_what_went_in_and_where_it_ran(study: Study, tmp_path: Path) -> None:
    store = write_study(tmp_path, study, without=[("swa", 0), ("pswa", 1)])
    write_run(store, study, "swa", 0, environment={**ENVIRONMENT, "device": "cuda"})
    manifest = dict(Page(rendered(study, store, [])).tables[-1])
    found = {name.strip(): value.strip() for name, value in manifest.items()}
    assert found["Backbone"] == PROVENANCE["backbone"]
    assert found["Data: images"] == "0" * 64
    assert set(found["Device"].split("; ")) == {"cpu", "cuda"}
    seconds = sum(
        record.seconds
        for name in study.run_names
        for seed in range(8)
        if (record := store.find(name, seed))
    )
    assert found["Runs"] == f"47, {seconds:.0f} s of training in all"


def test_says_what_the_methods_reached(study: Study, store: RecordStore, text: str) -> None:
    means = {name: np.mean(results(store, name)) for name in study.row_names}
    start = means.pop("adam")
    words = Page(text).words
    no_break = report.typeset
    assert no_break(f"Before fine-tuning, {start:.2f} % of the test images") in words
    lowest, highest = (choose(means, key=lambda name: means[name]) for choose in (min, max))
    assert (
        no_break(f"between {means[lowest]:.2f} % ({lowest}) and {means[highest]:.2f} % ({highest})")
        in words
    )


def test_controls_are_none_of_what_was_found_of_the_methods(tmp_path: Path) -> None:
    control = {"adam-longer": the_controls()["adam-longer"]}
    study = study_with(3, rate_sweep=None, controls=control)
    store = write_study(tmp_path, study, {"adam-longer": Truth(accuracy=99)})
    found = Page(rendered(study, store, seeds=3)).words
    reach = found[found.index("The fine-tuned methods reach") :]
    assert "adam-longer" not in reach[: reach.index("as means over seeds")]


def test_what_could_be_detected_is_by_the_studys_power_and_level(
    store: RecordStore, study: Study
) -> None:
    rules = study.claims.model_copy(update={"power": 0.95, "alpha": 0.2})
    ruled = study.model_copy(update={"claims": rules})
    (line,) = (
        line
        for line in not_distinguished(ruled, collect(ruled, store, range(8)))
        if line.startswith("swa-cyclical")
    )
    d = np.subtract(results(store, "swa-cyclical"), results(store, "sgd"))
    detects = detectable_difference(d.std(ddof=1), 8, 0.95, 0.2 / 5)
    assert f"({d.mean():+.3f} points)" in line
    assert f"{detects:.3f} points would be found with 95% power" in line


def test_a_rows_standing_is_by_the_t_test_after_holms_correction(
    study: Study, tmp_path: Path
) -> None:
    """At whatever level: every p-value is met from both sides."""
    means = {"adam": 92.95, "sgd-multiplicative": 93.04, "swa": 93.2, "swa-cyclical": 92.9}
    truths = {name: Truth(accuracy=mean, spread=0.1) for name, mean in means.items()}
    store = write_study(tmp_path, study, {"sgd": Truth(spread=0.1), **truths})
    rows = collect(study, store, range(8))
    others = [name for name in study.row_names if name != "sgd"]
    p_values, gains = [], []
    for name in others:
        d = np.subtract(results(store, name), results(store, "sgd"))
        p_values.append(float(stats.ttest_1samp(d, 0).pvalue))
        gains.append(d.mean())
    # Holm: the k-th smallest of m counts m − k times, and never less than one before it.
    order = np.argsort(p_values)
    adjusted = np.empty(len(others))
    adjusted[order] = np.maximum.accumulate(np.sort(p_values) * np.arange(len(others), 0, -1))
    levels = [p * side for p in np.unique(adjusted[adjusted < 0.4]) for side in (0.98, 1.02)]
    assert len(levels) >= 4
    for alpha in levels:
        ruled = study.model_copy(
            update={"claims": study.claims.model_copy(update={"alpha": alpha})}
        )
        expected = {
            name: "not distinguished" if p > alpha else "above" if gain > 0 else "below"
            for name, p, gain in zip(others, adjusted, gains, strict=True)
        }
        assert standings(ruled, rows) == expected


def test_a_missing_run_is_told_first(tmp_path: Path, study: Study) -> None:
    words = Page(rendered(study, store_of(tmp_path, study, without=[("swa", 5)]))).words
    assert "INCOMPLETE: swa lacks seeds 5." in words
    assert words.index("INCOMPLETE") < words.index("Before fine-tuning")


def test_a_row_that_diverged_is_told_in_the_table_and_among_what_was_found(
    tmp_path: Path, study: Study
) -> None:
    text = rendered(study, store_of(tmp_path, study, diverged={("swa", 5): 2}))
    assert "swa diverged at 1 of 8 seeds, so no mean of it is shown." in Page(text).words
    assert "diverged (1 of 8)" in text
    assert "swa diverged at 1 of 8 seeds, so it has no mean, and its difference" in text
    assert "INCOMPLETE: swa" not in text


def test_words_from_a_study_are_only_words(tmp_path: Path) -> None:
    study = study_with(2, rate_sweep=None, title="<script>alert('x')</script> & more")
    text = rendered(study, store_of(tmp_path, study), seeds=2)
    assert "<script" not in text
    assert "alert('x')</script> & more" in Page(text).words


def test_numbers_are_set_with_a_minus_and_do_not_break() -> None:
    assert report.typeset("-0.5 [-0.6, -0.4]") == "−0.5 [−0.6,\u00a0−0.4]"
    assert report.typeset("swa-cyclical-2, 2023-01") == "swa-cyclical-2, 2023-01"
    assert report.typeset("93.1 % at p < 0.05, 95 %") == ("93.1\u00a0% at p <\u00a00.05, 95\u00a0%")


def test_the_ensemble_stands_beside_the_average(study: Study, tmp_path: Path) -> None:
    store = write_study(tmp_path, study, {"swa": Truth(ensemble_gap=0.25, ensemble_loss_gap=0.01)})
    frame = ensembles(study, collect(study, store, range(8))).set_index("method")
    assert list(frame.index) == ["swa", "swa-cyclical", "pswa"]
    assert frame.loc["swa", "accuracy_difference"] == pytest.approx(0.25, abs=0.003)
    assert frame.loc["swa", "loss_difference"] == pytest.approx(-0.01, abs=0.0001)
    gap = Truth().ensemble_gap
    assert frame.loc["pswa", "accuracy_difference"] == pytest.approx(gap, abs=0.003)
    assert (frame["seeds"] == 8).all()
