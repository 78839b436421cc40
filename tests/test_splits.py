"""Splits: each class keeps its share, and the seed alone decides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swabench.data.datasets import Dataset
from swabench.data.splits import choose_rows, stratified_split
from swabench.study.inputs import DataSettings
from swabench.system.errors import InputError

label_lists = st.lists(st.sampled_from([0, 1, 2, 7]), min_size=1, max_size=200)


@given(label_lists, st.data(), st.integers(0, 2**32 - 1))
def test_split_keeps_shares(labels: list[int], draw: st.DataObject, seed: int) -> None:
    given_labels = np.array(labels)
    held_out = draw.draw(st.integers(0, len(labels) - 1))
    train, validation = stratified_split(given_labels, held_out, seed)

    assert len(validation) == held_out
    assert sorted([*train, *validation]) == list(range(len(labels)))
    for part in (train, validation):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
    for label in set(labels):
        quota = held_out * labels.count(label) / len(labels)
        assert abs((given_labels[validation] == label).sum() - quota) < 1

    again = stratified_split(given_labels, held_out, seed)
    np.testing.assert_array_equal(validation, again[1])


def test_largest_remainder_takes_the_seat() -> None:
    # Quotas of 4 among 5, 3 and 2 of 10: 2.0, 1.2, 0.8.
    labels = np.repeat([0, 1, 2], [5, 3, 2])
    _, validation = stratified_split(labels, 4, seed=0)
    assert np.bincount(labels[validation]).tolist() == [2, 1, 1]


def test_split_draws_from_the_seed_alone() -> None:
    labels = np.arange(1000) % 10
    np.random.seed(0)  # noqa: NPY002
    first = stratified_split(labels, 100, seed=1)[1]
    np.random.seed(5)  # noqa: NPY002
    assert (stratified_split(labels, 100, seed=1)[1] == first).all()
    assert (stratified_split(labels, 100, seed=2)[1] != first).any()


@pytest.mark.parametrize("held_out", [-1, 10, 11])
def test_split_that_leaves_nothing(held_out: int) -> None:
    with pytest.raises(InputError, match=f"{held_out} of 10"):
        stratified_split(np.zeros(10, np.int64), held_out, seed=0)


def test_the_draw_stays_what_recorded_runs_were_trained_on() -> None:
    """Runs are found by the settings of a split: another draw would mix two in one study."""
    labels = np.arange(30) % 4
    images = np.zeros((30, 1, 1, 1), np.uint8)
    dataset = Dataset("folder", images, labels, images, labels, 4, {}, "a test")
    settings = DataSettings(
        validation_images=8, selection_images=3, training_images=6, test_images=5, split_seed=3
    )
    found = {name: rows.tolist() for name, rows in choose_rows(settings, dataset).items()}
    assert found == {
        "train": [4, 9, 19, 24, 25, 26],
        "validation": [0, 3, 11, 22, 29],
        "selection": [5, 18, 20],
        "test": [0, 5, 6, 20, 23],
    }
