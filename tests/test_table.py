"""The comparison table, from records made up so that every number is known."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from swabench.analysis import table
from swabench.analysis.frame import collect, incompleteness, measurements, missing_runs
from swabench.analysis.words import what_was_run
from swabench.records import RecordStore
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.system.errors import InputError
from tests.made_up import PROVENANCE, Truth, last_of, outcome, record_of, study_with, write_run

GOLDEN = Path(__file__).parent / "golden"
# Accuracies by method and seed, in percent.
ACCURACIES = {
    "adam": [92.0, 92.2, 92.4],
    "sgd": [93.0, 93.1, 93.2],
    "sgd-multiplicative": [93.1, 93.1, 93.5],
    "swa": [93.2, 93.3, 93.5],
    "swa-cyclical": [93.0, 93.3, 93.3],
    "pswa": [93.1, 93.0, 93.3],
}
SEEDS = [0, 1, 2]


def truth(method: str, seed: int) -> Truth:
    """The result's final test accuracy as above, and a loss that goes its own way."""
    return Truth.exactly(ACCURACIES[method][seed], loss(method, seed))


def loss(method: str, seed: int) -> float:
    return 0.25 + 0.01 * list(ACCURACIES).index(method) + 0.001 * (seed - 1) ** 2


@pytest.fixture
def study() -> Study:
    return load_study("mnist")


@pytest.fixture
def store(tmp_path: Path, study: Study) -> RecordStore:
    store = RecordStore(tmp_path, study)
    for method in ACCURACIES:
        for seed in SEEDS:
            write_run(store, study, method, seed, truth(method, seed))
    return store


def frame(study: Study, store: RecordStore, seeds: list[int]) -> pd.DataFrame:
    return table.comparison(study, collect(study, store, seeds))


def test_has_the_columns_asked_for_and_the_papers_order(study: Study, store: RecordStore) -> None:
    found = frame(study, store, SEEDS)
    assert list(found["method"]) == list(ACCURACIES)
    assert {
        "method", "accuracy", "accuracy_low", "accuracy_high", "loss", "paper_accuracy",
        "difference_to_sgd", "difference_low", "difference_high", "seeds",
    } <= set(found.columns)  # fmt: skip
    assert (found["seeds"] == 3).all()


# --- rows that diverged ----------------------------------------------------------------------


@pytest.fixture
def lost(tmp_path: Path, study: Study) -> RecordStore:
    """Periodic SWA diverged at one seed of three, before anything was measured of it there."""
    store = RecordStore(tmp_path / "lost", study)
    for method in ACCURACIES:
        for seed in SEEDS:
            after = 1 if (method, seed) == ("pswa", 1) else None
            write_run(store, study, method, seed, truth(method, seed), diverged_after=after)
    return store


def test_a_row_that_diverged_at_a_seed_has_its_count_and_no_mean_over_the_others(
    study: Study, lost: RecordStore
) -> None:
    found = frame(study, lost, SEEDS).set_index("method")
    assert found["diverged"].to_dict() == {name: int(name == "pswa") for name in ACCURACIES}
    assert (found["seeds"] == 3).all()
    numbers = found.columns.difference(["title", "seeds", "diverged", "paper_accuracy"])
    assert found.loc[["pswa"], list(numbers)].isna().all(axis=None)
    assert found.loc["sgd", ["accuracy", "accuracy_low", "loss"]].notna().all()
    text = table.as_csv(found.reset_index())
    assert [line for line in text.splitlines() if line.endswith(",3,1")] == [
        f'pswa,"Periodic SWA, p = 3"{"," * 14}3,1'
    ]


def test_where_a_row_diverged_a_person_reads_so_in_place_of_its_numbers(
    study: Study, lost: RecordStore
) -> None:
    records = collect(study, lost, SEEDS)
    shown = table.presentable(table.comparison(study, records), study)
    cells = [[*row.values()] for row in shown.to_dict("records") if row["Method"] == "pswa"]
    assert cells[0][1:] == ["diverged (1 of 3)", "diverged (1 of 3)", "—", "—", "—", 3]
    beside, along = table.ensembles(study, records), table.on_one_trajectory(study, records)
    for other in (
        table.presentable_ensembles(beside, study),
        table.presentable_trajectories(along, study),
    ):
        (row,) = ([*row.values()] for row in other.to_dict("records") if "pswa" in row.values())
        assert "diverged (1 of 3)" in row
        assert not [cell for cell in row if "[" in str(cell)]
    lines = table.divergences(study, records)
    assert lines == [
        "pswa diverged at 1 of 3 seeds, so it has no mean, and its difference to sgd is not "
        "decided."
    ]
    markdown = table.as_markdown(study, shown, along, beside, "", lines)
    assert markdown.count("diverged (1 of 3)") == 2 + 2 + 4
    assert f"- {lines[0]}" in markdown
    assert "& diverged (1 of 3) & diverged (1 of 3) &" in table.as_latex(study, shown, "")
    assert "pswa" not in table.standings(study, records)
    assert not [line for line in table.not_distinguished(study, records) if "pswa" in line]


def test_where_the_reference_diverged_no_difference_to_it_is_decided(
    study: Study, lost: RecordStore
) -> None:
    of = study.model_copy(update={"reference": "pswa"})
    records = collect(of, lost, SEEDS)
    found = table.comparison(of, records)
    assert found[["difference_to_pswa", "loss_difference_to_pswa"]].isna().all(axis=None)
    assert table.standings(of, records) == {}
    (line,) = table.divergences(of, records)
    assert line.endswith("so it has no mean, and no difference to it is decided.")


def test_a_run_that_diverged_ends_in_an_infinite_loss_in_the_frame(
    study: Study, tmp_path: Path
) -> None:
    """So whoever takes means of the frame gets none over the survivors."""
    store = RecordStore(tmp_path, study)
    write_run(store, study, "swa", 0)
    write_run(store, study, "swa", 1, diverged_after=3)
    records = collect(study, store, [0, 1])
    own = records.frame[records.frame["seed"] == 1]
    last = own.iloc[-1]
    assert (last["epoch"], last["predictor"], last["split"]) == (3, "iterate", "validation")
    assert (last["loss"], np.isnan(last["accuracy"])) == (np.inf, True)
    assert set(own["epoch"][:-1]) == {1, 2}
    assert np.isfinite(own["loss"][:-1]).all()
    assert records.diverged == {"swa": [1]}
    assert records.divergences() == ["swa diverged at 1 of 2 seeds"]
    assert records.final("swa", "loss") == records.final("swa", "loss", "iterate") == {}
    course = records.course("swa", "accuracy", "average")
    assert course[1].notna().tolist() == [True, True, *[False] * (len(course) - 2)]
    assert course[0].notna().all()


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_numbers_are_final_test_results_with_paired_t_intervals_at_the_studys_confidence(
    study: Study, store: RecordStore, confidence: float
) -> None:
    study = study.model_copy(update={"confidence": confidence})
    rows = frame(study, store, SEEDS).set_index("method")

    def check(name: str, columns: tuple[str, str, str], values: list[float]) -> None:
        low, high = stats.ttest_1samp(values, 0).confidence_interval(confidence)
        expected = np.array([sum(values) / len(values), low, high])
        np.testing.assert_allclose(rows.loc[name, list(columns)].astype(float), expected)

    for name, values in ACCURACIES.items():
        check(name, ("accuracy", "accuracy_low", "accuracy_high"), values)
        losses = [loss(name, seed) for seed in SEEDS]
        check(name, ("loss", "loss_low", "loss_high"), losses)
        if name != "sgd":
            pairs = zip(values, ACCURACIES["sgd"], strict=True)
            columns = ("difference_to_sgd", "difference_low", "difference_high")
            check(name, columns, [a - b for a, b in pairs])
    assert rows["difference_to_sgd"].isna().tolist() == [name == "sgd" for name in ACCURACIES]


def test_differences_in_loss_are_paired_with_intervals_at_the_studys_confidence(
    study: Study, store: RecordStore
) -> None:
    study = study.model_copy(update={"confidence": 0.8})
    seeds = [10, 11, 12]
    for seed in seeds:
        for name in ("sgd", "swa"):
            write_run(store, study, name, seed)
    row = frame(study, store, seeds).set_index("method").loc["swa"]
    own, other = (
        np.array([last_of(r, r.result, "test").loss for r in records])
        for records in ([record_of(store, name, s) for s in seeds] for name in ("swa", "sgd"))
    )
    interval = stats.ttest_1samp(own - other, 0).confidence_interval(0.8)
    columns = ["loss_difference_to_sgd", "loss_difference_low", "loss_difference_high"]
    expected = [(own - other).mean(), interval.low, interval.high]
    np.testing.assert_allclose(row[columns].astype(float), expected)


def test_the_average_and_the_ensemble_are_compared_seed_by_seed_on_the_test_images(
    study: Study, store: RecordStore
) -> None:
    study = study.model_copy(update={"confidence": 0.8})
    for seed in SEEDS:  # another gap at every seed
        gaps = Truth(ensemble_gap=0.1 + 0.03 * seed**2, ensemble_loss_gap=0.01 + 0.002 * seed)
        write_run(store, study, "swa", 10 + seed, gaps)
    seeds = [10, 11, 12]
    records = [record_of(store, "swa", seed) for seed in seeds]
    row = table.ensembles(study, collect(study, store, seeds)).set_index("method").loc["swa"]
    for measure in ("accuracy", "loss"):
        average, ensemble = (
            np.array([getattr(last_of(record, predictor, "test"), measure) for record in records])
            for predictor in ("average", "ensemble")
        )
        for column, values in (
            (f"average_{measure}", average),
            (f"ensemble_{measure}", ensemble),
            (f"{measure}_difference", ensemble - average),
        ):
            low, high = stats.ttest_1samp(values, 0).confidence_interval(0.8)
            found = [row[column], row[f"{column}_low"], row[f"{column}_high"]]
            np.testing.assert_allclose(found, [values.mean(), low, high], err_msg=column)


def test_what_a_person_reads_says_at_which_confidence(study: Study, store: RecordStore) -> None:
    study = study.model_copy(update={"confidence": 0.8})
    rows = frame(study, store, SEEDS)
    beside = table.ensembles(study, collect(study, store, SEEDS))
    shown = [*table.presentable(rows, study), *table.presentable_ensembles(beside, study)]
    assert sum("[80 %]" in str(column) for column in shown) == 10
    assert not any("95 %" in str(column) for column in shown)


def test_one_seed_cannot_say_what_it_would_detect(study: Study, store: RecordStore) -> None:
    lines = table.not_distinguished(study, collect(study, store, [0]))
    assert len(lines) == len(ACCURACIES) - 1
    line = next(line for line in lines if line.startswith("swa is"))
    assert line.endswith("by 1 seeds after Holm's correction (+0.200 points).")


@pytest.mark.parametrize("kind", ["csv", "md", "tex"])
def test_golden_files(study: Study, store: RecordStore, kind: str) -> None:
    found = frame(study, store, SEEDS)
    shown = table.presentable(found, study)
    text = {
        "csv": lambda: table.as_csv(found),
        "md": lambda: shown.to_markdown(index=False, disable_numparse=True) + "\n",
        "tex": lambda: table.as_latex(study, shown, ""),
    }[kind]()
    golden = GOLDEN / f"table.{kind}"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_missing_runs_are_told_and_differences_pair_what_is_there(
    study: Study, store: RecordStore
) -> None:
    write_run(store, study, "swa", 7, Truth.exactly(99, 0.2))
    records = collect(study, store, [*SEEDS, 7])
    missing = missing_runs(records, [*SEEDS, 7])
    assert "swa" not in missing
    assert missing["sgd"] == [7]
    assert incompleteness(missing).startswith("INCOMPLETE: adam lacks seeds 7; sgd lacks")
    rows = table.comparison(study, records).set_index("method")
    assert rows.loc["swa", "seeds"] == 4
    assert rows.loc["swa", "difference_to_sgd"] == pytest.approx(0.7 / 3)


def test_a_row_without_records_keeps_its_place(tmp_path: Path, study: Study) -> None:
    store = RecordStore(tmp_path, study)
    write_run(store, study, "sgd", 0, Truth.exactly(93, 0.25))
    found = frame(study, store, [0])
    assert list(found["seeds"]) == [0, 1, 0, 0, 0, 0]
    shown = table.presentable(found, study)
    assert shown.iloc[0, 1] == "—"
    assert shown.iloc[1, 1] == "93.00"


def test_no_records_at_all_names_the_command(tmp_path: Path, study: Study) -> None:
    with pytest.raises(InputError, match="swabench reproduce"):
        collect(study, RecordStore(tmp_path, study), [0])


@pytest.mark.parametrize("other", [{"data": {"images": "other"}}, {"backbone": "other"}])
def test_records_of_other_data_or_weights_are_not_mixed_in(
    study: Study, store: RecordStore, other: dict[str, object]
) -> None:
    write_run(store, study, "sgd", 9, provenance={**PROVENANCE, **other})
    with pytest.raises(InputError, match="different data"):
        collect(study, store, [0, 9])


def test_features_may_differ_between_seeds_and_not_within_one(
    study: Study, store: RecordStore
) -> None:
    """Another machine rounds otherwise, and pairs are of one seed."""
    for seed, digest in ((8, "one machine"), (9, "another")):
        for name in ("sgd", "swa"):
            features = {"head": {"training": digest}}
            write_run(store, study, name, seed, provenance={**PROVENANCE, "features": features})
    assert len(collect(study, store, [8, 9]).all()) == 4
    features = {"head": {"training": "one machine"}}
    write_run(store, study, "pswa", 9, provenance={**PROVENANCE, "features": features})
    with pytest.raises(InputError, match=r"seed-9.*was made from different features than .*seed-9"):
        collect(study, store, [8, 9])


def test_every_measurement_of_every_run_is_a_row(study: Study, store: RecordStore) -> None:
    found = measurements(collect(study, store, SEEDS))
    expected = [
        (name, seed, m.epoch, m.predictor, m.split, m.batchnorm, m.accuracy, m.loss)
        for name in ACCURACIES
        for seed in SEEDS
        for m in outcome(study, name, seed, truth(name, seed)).history
    ]
    assert list(found.itertuples(index=False, name=None)) == expected


def test_documents_for_people_hold_every_row_and_what_is_missing(
    study: Study, store: RecordStore
) -> None:
    records = collect(study, store, [*SEEDS, 7])
    rows, beside = table.comparison(study, records), table.ensembles(study, records)
    shown = table.presentable(rows, study)
    lacking = incompleteness(missing_runs(records, [*SEEDS, 7]))
    undecided = table.not_distinguished(study, records)
    same = table.on_one_trajectory(study, records)
    markdown = table.as_markdown(study, shown, same, beside, lacking, undecided)
    latex = table.as_latex(study, shown, lacking)
    for text in (markdown, latex):
        assert "INCOMPLETE: adam lacks seeds 7; sgd lacks seeds 7" in text
        assert all(name in text for name in ACCURACIES)
        assert "93.20 [92.77, 93.63]" in text
    assert all(f"- {line}" in markdown for line in undecided)
    for column in table.presentable_ensembles(beside, study):
        assert str(column) in markdown
    for column in table.presentable_trajectories(same, study):
        assert str(column) in markdown


def test_average_less_iterate_is_of_one_run(study: Study, store: RecordStore) -> None:
    found = table.on_one_trajectory(study, collect(study, store, SEEDS)).set_index("method")
    assert list(found.index) == ["swa", "swa-cyclical", "pswa"]
    assert found["rate"].tolist()[0] == 0.01
    assert found["rate"].isna().tolist() == [False, True, True]
    assert (found["seeds"] == 3).all()
    records = [record_of(store, "swa", seed) for seed in SEEDS]
    for measure in ("accuracy", "loss"):
        average, iterate = (
            np.array([getattr(last_of(r, predictor, "test"), measure) for r in records])
            for predictor in ("average", "iterate")
        )
        low, high = stats.ttest_1samp(average - iterate, 0).confidence_interval(0.95)
        row = found.loc["swa"]
        assert row[f"average_{measure}"] == pytest.approx(average.mean())
        assert row[f"iterate_{measure}"] == pytest.approx(iterate.mean())
        assert row[f"{measure}_difference"] == pytest.approx((average - iterate).mean())
        assert row[f"{measure}_difference_low"] == pytest.approx(low)
        assert row[f"{measure}_difference_high"] == pytest.approx(high)


def test_the_papers_column_belongs_to_the_papers_study(study: Study, store: RecordStore) -> None:
    rows = frame(study, store, SEEDS)
    assert "Paper, %" in table.presentable(rows, study)
    assert "Paper, %" not in table.presentable(rows.assign(paper_accuracy=np.nan), study)


# --- as a person reads it ------------------------------------------------------------------------

NUMBERS = (
    "average_accuracy", "ensemble_accuracy", "iterate_accuracy", "accuracy_difference",
    "average_loss", "ensemble_loss", "iterate_loss", "loss_difference",
)  # fmt: skip


def beside(name: str, seeds: int, **more: float) -> dict[str, object]:
    """A row with an ensemble or an iterate beside its average; no number occurs twice."""
    row: dict[str, object] = {"method": name, "seeds": seeds, "diverged": 0, **more}
    for place, column in enumerate(NUMBERS):
        value = place + seeds / 100 + 0.12345
        low, high = value - 0.0111, value + 0.0222
        row |= {column: value, f"{column}_low": low, f"{column}_high": high}
    return row


def cell(row: Mapping[str, object], column: str, form: str) -> str:
    """A mean with its interval, every number in the form."""
    mean, low, high = (format(row[f"{column}{end}"], form) for end in ("", "_low", "_high"))
    return f"{mean} [{low}, {high}]"


def test_the_ensembles_table_has_every_number_under_its_own_title(study: Study) -> None:
    rows = [beside("swa", 3), beside("pswa", 2)]
    shown = table.presentable_ensembles(pd.DataFrame(rows), study)
    assert shown.to_dict(orient="records") == [
        {
            "Method": row["method"],
            "Average, % [95 %]": cell(row, "average_accuracy", ".2f"),
            "Ensemble, % [95 %]": cell(row, "ensemble_accuracy", ".2f"),
            "Difference, points [95 %]": cell(row, "accuracy_difference", "+.3f"),
            "Average, loss [95 %]": cell(row, "average_loss", ".4f"),
            "Ensemble, loss [95 %]": cell(row, "ensemble_loss", ".4f"),
            "Difference, loss [95 %]": cell(row, "loss_difference", "+.4f"),
            "Seeds": row["seeds"],
        }
        for row in rows
    ]


def test_average_less_iterate_is_shown_from_the_lowest_rate_each_number_under_its_title(
    study: Study,
) -> None:
    cyclical, high, low = (
        beside("pswa", 4, rate=np.nan),
        beside("swa-rate-0.05", 3, rate=0.05),
        beside("swa-rate-0.00125", 2, rate=0.00125),
    )
    shown = table.presentable_trajectories(pd.DataFrame([cyclical, high, low]), study)
    assert list(shown.index) == [0, 1, 2]
    assert shown.to_dict(orient="records") == [
        {
            "Run": row["method"],
            "Rate": rate,
            "Iterate, % [95 %]": cell(row, "iterate_accuracy", ".2f"),
            "Average, % [95 %]": cell(row, "average_accuracy", ".2f"),
            "Average − iterate, points [95 %]": cell(row, "accuracy_difference", "+.3f"),
            "Average − iterate, loss [95 %]": cell(row, "loss_difference", "+.4f"),
            "Seeds": row["seeds"],
        }
        for row, rate in ((low, "0.00125"), (high, "0.05"), (cyclical, "—"))
    ]


def test_only_a_rate_that_stays_is_the_rate_of_a_run(tmp_path: Path) -> None:
    """A schedule that only starts at a rate is no place on the axis of rates."""
    methods = study_with(2, rate_sweep=None).model_dump()["methods"]
    decays = {**methods["swa"], "rate": methods["sgd-multiplicative"]["rate"]}
    methods["swa-decays"] = decays
    study = study_with(2, rate_sweep=None, methods=methods)
    store = RecordStore(tmp_path, study)
    for name in ("sgd", "swa", "swa-decays"):
        write_run(store, study, name, 0)
    found = table.on_one_trajectory(study, collect(study, store, [0])).set_index("method")
    assert found.loc["swa", "rate"] == 0.01
    assert found["rate"].isna().tolist() == [False, True]


def test_the_markdown_has_its_parts_in_order_each_with_its_heading(
    study: Study, store: RecordStore
) -> None:
    records = collect(study, store, SEEDS)
    shown = table.presentable(table.comparison(study, records), study)
    same, both = table.on_one_trajectory(study, records), table.ensembles(study, records)
    text = table.as_markdown(study, shown, same, both, "INCOMPLETE: one.", ["a line", "another"])
    tables = (
        shown,
        table.presentable_trajectories(same, study),
        table.presentable_ensembles(both, study),
    )
    first, second, third = (t.to_markdown(index=False, disable_numparse=True) for t in tables)
    *parts, last = text.removesuffix("\n").split("\n\n")
    assert [*parts, last] == [
        f"{study.title}. {what_was_run(study)}",
        "INCOMPLETE: one.",
        first,
        study.draws_in_words,
        "- a line\n- another",
        "The average less the iterate of the same trajectory, on the test images:",
        second,
        "The average, and the ensemble of the same snapshots, on the test images:",
        third,
    ]
    alone = table.as_markdown(study, shown, same.iloc[:0], both.iloc[:0], "", [])
    assert alone.removesuffix("\n").split("\n\n") == [parts[0], first, study.draws_in_words]


def test_a_title_with_signs_of_latex_is_a_caption_all_the_same(
    study: Study, store: RecordStore
) -> None:
    named = study.model_copy(update={"title": "90 % of a_b & #1 for $5"})
    shown = table.presentable(frame(study, store, SEEDS), study)
    latex = table.as_latex(named, shown, "INCOMPLETE: swa lacks seeds 7.")
    expected = r"\caption{90 \% of a\_b \& \#1 for \$5. INCOMPLETE: swa lacks seeds 7.}"
    assert expected in latex


def test_nothing_in_a_title_or_a_name_is_obeyed_by_latex(study: Study, store: RecordStore) -> None:
    named = study.model_copy(update={"title": r"\input{/etc/passwd} ^^5c {~}"})
    shown = pd.DataFrame({"Method": ["my_swa", r"a\b"], "Paper, %": ["—", "1"]})
    latex = table.as_latex(named, shown, "")
    caption = r"\textbackslash{}input\{/etc/passwd\} \textasciicircum{}\textasciicircum{}5c"
    assert caption + r" \{\textasciitilde{}\}." in latex
    assert r"my\_swa & ---" in latex
    assert r"a\textbackslash b & 1" in latex
