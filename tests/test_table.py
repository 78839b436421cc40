"""The comparison table, from records made up so that every number is known."""

from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from swabench.analysis import table
from swabench.records import RecordStore
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.system.errors import InputError
from tests.test_records import outcome, write

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


@pytest.fixture
def study() -> Study:
    return load_study("mnist")


@pytest.fixture
def store(tmp_path: Path, study: Study) -> RecordStore:
    store = RecordStore(tmp_path, study)
    for method, accuracies in ACCURACIES.items():
        plan = study.row_method(method).averaging
        for seed, accuracy in enumerate(accuracies):
            write(store, method, seed, outcome(accuracy, averages=plan is not None))
    return store


def frame(study: Study, store: RecordStore, seeds: list[int]) -> pd.DataFrame:
    return table.comparison(study, table.collect(study, store, seeds))


def test_has_the_columns_asked_for_and_the_papers_order(study: Study, store: RecordStore) -> None:
    found = frame(study, store, SEEDS)
    assert list(found["method"]) == list(ACCURACIES)
    assert {
        "method", "accuracy", "accuracy_low", "accuracy_high", "loss", "paper_accuracy",
        "difference_to_sgd", "difference_low", "difference_high", "seeds",
    } <= set(found.columns)  # fmt: skip
    assert (found["seeds"] == 3).all()


def test_intervals_and_differences_are_paired_t_intervals(study: Study, store: RecordStore) -> None:
    rows = frame(study, store, SEEDS).set_index("method")
    for name, values in ACCURACIES.items():
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert rows.loc[name, "accuracy"] == pytest.approx(sum(values) / 3)
        assert rows.loc[name, "accuracy_low"] == pytest.approx(low)
        assert rows.loc[name, "accuracy_high"] == pytest.approx(high)
        if name != "sgd":
            low, high = stats.ttest_rel(values, ACCURACIES["sgd"]).confidence_interval(0.95)
            assert rows.loc[name, "difference_low"] == pytest.approx(low)
            assert rows.loc[name, "difference_high"] == pytest.approx(high)
    assert rows["difference_to_sgd"].isna().tolist() == [name == "sgd" for name in ACCURACIES]


@pytest.mark.parametrize("kind", ["csv", "md", "tex"])
def test_golden_files(study: Study, store: RecordStore, kind: str) -> None:
    found = frame(study, store, SEEDS)
    shown = table.presentable(found, study)
    text = {
        "csv": lambda: table.as_csv(found),
        "md": lambda: shown.to_markdown(index=False, disable_numparse=True) + "\n",
        "tex": lambda: table.as_latex(study, shown, ""),
    }[kind]()
    assert text == (GOLDEN / f"table.{kind}").read_text()


def test_missing_runs_are_told_and_differences_pair_what_is_there(
    study: Study, store: RecordStore
) -> None:
    write(store, "swa", 7, outcome(99.0))
    records = table.collect(study, store, [*SEEDS, 7])
    missing = table.missing_runs(records, [*SEEDS, 7])
    assert "swa" not in missing
    assert missing["sgd"] == [7]
    assert table.incompleteness(missing).startswith("INCOMPLETE: adam lacks seeds 7; sgd lacks")
    rows = table.comparison(study, records).set_index("method")
    assert rows.loc["swa", "seeds"] == 4
    assert rows.loc["swa", "difference_to_sgd"] == pytest.approx(0.7 / 3)


def test_a_row_without_records_keeps_its_place(tmp_path: Path, study: Study) -> None:
    store = RecordStore(tmp_path, study)
    write(store, "sgd", 0, outcome(93.0, averages=False))
    found = frame(study, store, [0])
    assert list(found["seeds"]) == [0, 1, 0, 0, 0, 0]
    shown = table.presentable(found, study)
    assert shown.iloc[0, 1] == "—"
    assert shown.iloc[1, 1] == "93.00"


def test_no_records_at_all_names_the_command(tmp_path: Path, study: Study) -> None:
    with pytest.raises(InputError, match="swabench reproduce"):
        table.collect(study, RecordStore(tmp_path, study), [0])


def test_records_of_other_data_are_not_mixed_in(study: Study, store: RecordStore) -> None:
    store.write(
        "sgd", 9, outcome(averages=False), provenance={"data": {"images": "other"}},
        environment={}, seconds=1,
    )  # fmt: skip
    with pytest.raises(InputError, match="other data"):
        table.collect(study, store, [0, 9])


def test_measurements_are_one_a_row(study: Study, store: RecordStore) -> None:
    found = table.measurements(table.collect(study, store, SEEDS))
    assert len(found) == 3 * (3 * 2 + 3 * 6)
    assert set(found["predictor"]) == {"iterate", "average", "ensemble"}
