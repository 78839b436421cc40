"""What seeds draw: together or by turns, as a pure function, in words, and where it is refused."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swabench.study.loading import load_study
from swabench.study.seeds import SOURCES, Draws, Source, draws_of, in_spans, in_words, source_of
from swabench.study.study import Study

BASE = Draws(head=0, order=0, split=30, backbone=40)
some_sources = st.lists(st.sampled_from(SOURCES), min_size=1, unique=True)


def study_of(**changes: Any) -> Study:
    whole = load_study("mnist").model_dump()
    return Study.model_validate({**whole, "controls": None, **changes})


@given(st.integers(0, 10_000), some_sources)
def test_together_all_that_is_drawn_takes_the_seed(seed: int, drawn: list[Source]) -> None:
    found = draws_of(seed, BASE, drawn, one_at_a_time=False)
    for source in SOURCES:
        own = getattr(BASE, source)
        assert getattr(found, source) == (seed if source in drawn else own)


@given(st.integers(0, 500), some_sources)
def test_by_turns_a_seed_draws_one_source_and_no_draw_occurs_twice(
    seeds: int, drawn: list[Source]
) -> None:
    numbers: dict[Source, list[int]] = {source: [] for source in drawn}
    for seed in range(seeds):
        found = draws_of(seed, BASE, drawn, one_at_a_time=True)
        source = source_of(seed, drawn)
        others = [other for other in SOURCES if other != source]
        assert all(getattr(found, other) == getattr(BASE, other) for other in others)
        numbers[source].append(getattr(found, source))
    counts = [len(found) for found in numbers.values()]
    assert sum(counts) == seeds
    assert max(counts) - min(counts) <= 1  # every source as often, whatever the number of seeds
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())


def test_a_few_draws_as_they_are_written() -> None:
    """Known answers, which records are found by."""
    drawn: tuple[Source, ...] = ("head", "order", "split", "backbone")
    assert [draws_of(seed, Draws(), drawn, True) for seed in (0, 1, 2, 3, 4, 39)] == [
        Draws(head=1),
        Draws(order=1),
        Draws(split=1),
        Draws(backbone=1),
        Draws(head=2),
        Draws(backbone=10),
    ]
    assert draws_of(7, BASE, ("head", "order"), False) == Draws(7, 7, 30, 40)


def test_a_study_draws_heads_and_orders_unless_it_says_otherwise() -> None:
    mnist = load_study("mnist")
    assert mnist.draws(3) == Draws(head=3, order=3, split=0, backbone=0)
    own = study_of(
        data={"split_seed": 5},
        backbone={"seed": 6},
        seed_draws=["order"],
        one_source_at_a_time=True,
    )
    assert own.draws(3) == Draws(head=0, order=4, split=5, backbone=6)
    assert own.as_drawn(3) == own


def test_a_study_as_drawn_has_the_seeds_split_and_backbone_and_nothing_else_changed() -> None:
    study = study_of(seed_draws=["split", "backbone"])
    drawn = study.as_drawn(9)
    assert (drawn.data.split_seed, drawn.backbone.seed) == (9, 9)
    back = drawn.model_copy(update={"data": study.data, "backbone": study.backbone})
    assert back == study
    assert drawn.data.model_copy(update={"split_seed": 0}) == study.data


@pytest.mark.parametrize(
    ("drawn", "turns", "words"),
    [
        (
            ["head", "order"],
            False,
            "Seeds draw the final layer's start and the order of the data; one split and one "
            "backbone serve all seeds",
        ),
        (
            ["split", "order", "head"],
            False,
            "Seeds draw the final layer's start, the order of the data and the split; one backbone "
            "serves all seeds",
        ),
        (
            ["head", "order", "split", "backbone"],
            False,
            "Seeds draw the final layer's start, the order of the data, the split and the "
            "backbone's random weights",
        ),
        (
            ["order", "split"],
            True,
            "Seeds draw one of these at a time, while the others are held: the order of the data "
            "and the split",
        ),
        (
            ["order"],
            True,
            "Seeds draw the order of the data; one start of the final layer, one split and one "
            "backbone serve all seeds",
        ),
    ],
)
def test_what_is_drawn_in_words(drawn: list[Source], turns: bool, words: str) -> None:
    assert in_words(drawn, turns) == words
    study = study_of(seed_draws=drawn, one_source_at_a_time=turns)
    assert study.draws_in_words == f"{words}."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed_draws": []}, "seed_draws"),
        ({"seed_draws": ["head", "head"]}, "names a source twice"),
        ({"seed_draws": ["heads"]}, "'head', 'order', 'split' or 'backbone'"),
        ({"one_source_at_a_time": 1}, "one_source_at_a_time"),
        (
            {"seed_draws": ["backbone"], "backbone": {"weights": "IMAGENET1K_V1"}},
            "'backbone' needs random weights, and backbone.weights is 'IMAGENET1K_V1'",
        ),
        (
            {"seed_draws": ["split"], "data": {"test_images": 1000}},
            "data.test_images asks for 1,000",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study_of(**changes)


def test_other_weights_and_fewer_test_images_are_no_matter_where_they_are_not_drawn() -> None:
    study = study_of(backbone={"weights": "IMAGENET1K_V1"}, data={"test_images": 1000})
    assert study.seed_draws == ("head", "order")


def test_the_study_of_sources_has_ten_draws_of_each_and_the_papers_rows() -> None:
    study = load_study("mnist-sources")
    assert set(study.seed_draws) == set(get_args(Source))
    assert study.one_source_at_a_time
    turns = [source_of(seed, study.seed_draws) for seed in study.seeds]
    assert {source: turns.count(source) for source in SOURCES} == dict.fromkeys(SOURCES, 10)
    assert study.run_names == load_study("mnist").row_names


@pytest.mark.parametrize(
    ("seeds", "words"),
    [([7], "7"), ([3, 4], "3, 4"), ([0, 1, 2], "0-2"), ([0, 2, 3, 4, 5, 9, 8], "0, 2-5, 9, 8")],
)
def test_seeds_that_follow_each_other_are_told_as_a_span(seeds: list[int], words: str) -> None:
    assert in_spans(seeds) == words
