"""Averages, each against a literal transcription of its definition or against torch."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from swabench.study.averaging import (
    AveragingPlan,
    EqualMean,
    Exponential,
    GreedySoup,
    LastCaptures,
    Newest,
    ScoreWeighted,
)
from swabench.training.averages import Member, average_of

vectors = st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3)
runs = st.lists(vectors, min_size=1, max_size=12)
START = [9.0, 8.0, 7.0]


def vector(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def no_loss(weights: Tensor) -> float:
    raise AssertionError("this plan looks at no selection images")


def mean_of(
    plan: AveragingPlan,
    members: Sequence[Sequence[float]],
    start: Sequence[float] = START,
    accuracies: Sequence[float] = (),
) -> Tensor:
    """The average, and with it its ensemble, whose members here predict what they weigh."""
    average = average_of(plan, Member(vector(start), [vector(start), -vector(start)]))
    for number, member in enumerate(members):
        accuracy = accuracies[number] if accuracies else math.nan
        average.capture(Member(vector(member), [vector(member), -vector(member)], accuracy))
    found = average.weights(no_loss)
    # The ensemble's members count as the weights' do.
    predictions = average.predictions()
    torch.testing.assert_close(predictions[0], found)
    torch.testing.assert_close(predictions[1], -found)
    return found


def averaged_model(
    make: Callable[[nn.Module], AveragedModel], members: Sequence[Sequence[float]]
) -> Tensor:
    model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    averaged = make(model)
    for member in members:
        model.weight.data = vector(member).view(1, 3)
        averaged.update_parameters(model)
    return next(averaged.module.parameters()).detach().view(3)


# --- the equal mean --------------------------------------------------------------------------


@given(vectors, runs)
def test_equals_the_plain_mean_with_the_start_as_first_member(
    start: list[float], members: list[list[float]]
) -> None:
    expected = vector(np.mean([start, *members], axis=0).tolist())
    torch.testing.assert_close(mean_of(EqualMean(), members, start), expected)


@given(runs)
def test_without_the_start_it_is_torchs_averaged_model(members: list[list[float]]) -> None:
    found = mean_of(EqualMean(include_start=False), members)
    torch.testing.assert_close(found, averaged_model(AveragedModel, members))


def test_before_any_capture_the_average_is_the_start() -> None:
    for plan in (
        EqualMean(),
        EqualMean(include_start=False),
        Newest(plan="newest"),
        LastCaptures(plan="last", captures=2),
    ):
        assert mean_of(plan, []).tolist() == START


def test_the_newest_alone_is_the_newest() -> None:
    assert mean_of(Newest(plan="newest"), [[2, 2, 2], [5, 6, 7]]).tolist() == [5, 6, 7]


# --- exponential -----------------------------------------------------------------------------


def exponential(every: float, half_life: float, debias: bool = True) -> Exponential:
    return Exponential(
        plan="exponential",
        capture_every_epochs=every,
        half_life_epochs=half_life,
        debias=debias,
    )


@given(runs, st.floats(0.05, 3), st.floats(0.05, 20))
def test_not_debiased_it_is_torchs_exponential_average(
    members: list[list[float]], every: float, half_life: float
) -> None:
    decay = 2 ** (-every / half_life)

    def ema(model: nn.Module) -> AveragedModel:
        return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))

    found = mean_of(exponential(every, half_life, debias=False), members)
    torch.testing.assert_close(found, averaged_model(ema, members))


@given(runs, st.floats(0.05, 3), st.floats(0.05, 20))
def test_debiased_its_weights_are_powers_of_the_decay_that_sum_to_one(
    members: list[list[float]], every: float, half_life: float
) -> None:
    decay = 2 ** (-every / half_life)
    powers = decay ** np.arange(len(members) - 1, -1, -1.0)
    expected = vector((powers @ np.array(members) / powers.sum()).tolist())
    torch.testing.assert_close(mean_of(exponential(every, half_life), members), expected)


@given(st.floats(0.01, 5), st.floats(0.01, 1e4), st.integers(1, 200))
def test_the_share_of_a_capture_is_the_formulas(every: float, half_life: float, n: int) -> None:
    d = 2 ** (-every / half_life)
    assume(1 - d > 1e-6)
    assert exponential(every, half_life).share(n) == pytest.approx((1 - d) / (1 - d**n), rel=1e-6)


def test_after_a_half_life_a_member_counts_half() -> None:
    plan = exponential(every=0.5, half_life=2, debias=False)
    kept = (1 - plan.share(9)) ** 4
    assert kept == pytest.approx(0.5)
    # Captures fall on whole iterations, so that theirs is the interval that counts.
    assert (1 - plan.share(9, interval_epochs=1.0)) ** 2 == pytest.approx(0.5)


def test_a_very_long_half_life_is_the_equal_mean() -> None:
    members = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 10.0]]
    found = mean_of(exponential(every=1, half_life=1e5), members)
    same = mean_of(EqualMean(include_start=False), members)
    torch.testing.assert_close(found, same, rtol=1e-5, atol=0)


# --- the last k ------------------------------------------------------------------------------


@given(runs, st.integers(1, 14))
def test_the_last_captures_are_averaged(members: list[list[float]], k: int) -> None:
    expected = vector(np.mean(members[-k:], axis=0).tolist())
    torch.testing.assert_close(mean_of(LastCaptures(plan="last", captures=k), members), expected)


@given(runs)
def test_with_all_of_them_it_is_swa_without_the_start(members: list[list[float]]) -> None:
    all_of_them = LastCaptures(plan="last", captures=len(members))
    torch.testing.assert_close(
        mean_of(all_of_them, members), mean_of(EqualMean(include_start=False), members)
    )


# --- weighted by score -----------------------------------------------------------------------


def weighted(power: float = 1) -> ScoreWeighted:
    return ScoreWeighted(plan="score-weighted", power=power)


@given(runs, st.data(), st.sampled_from([0.0, 1.0, 7.0, 100.0]))
def test_members_count_by_a_power_of_their_accuracy(
    members: list[list[float]], data: st.DataObject, power: float
) -> None:
    some = st.lists(st.floats(0.3, 1), min_size=len(members), max_size=len(members))
    accuracies = data.draw(some)
    weights = np.array(accuracies) ** power
    expected = vector((weights @ np.array(members) / weights.sum()).tolist())
    found = mean_of(weighted(power), members, accuracies=accuracies)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@given(runs)
def test_with_equal_scores_it_is_swa(members: list[list[float]]) -> None:
    found = mean_of(weighted(1000), members, accuracies=[0.5] * len(members))
    torch.testing.assert_close(found, mean_of(EqualMean(include_start=False), members))


def test_at_a_high_power_the_best_member_is_all() -> None:
    members = [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]]
    found = mean_of(weighted(1e6), members, accuracies=[0.5, 0.9, 0.1])
    torch.testing.assert_close(found, vector([2, 2, 2]))


def test_a_member_that_gets_nothing_right_counts_nothing() -> None:
    found = mean_of(weighted(), [[1, 1, 1], [2, 2, 2]], accuracies=[0.0, 0.5])
    torch.testing.assert_close(found, vector([2, 2, 2]))


# --- the greedy soup -------------------------------------------------------------------------


def bowl(weights: Tensor) -> float:
    return float((weights**2).sum())


def soup_of(members: Sequence[Sequence[float]]) -> Tensor:
    average = average_of(GreedySoup(plan="greedy-soup"), Member(vector(START), loss=1e9))
    for member in members:
        average.capture(Member(vector(member), loss=bowl(vector(member))))
    assert average.predictions() == []
    return average.weights(bowl)


def literal_soup(members: Sequence[Sequence[float]]) -> Tensor:
    """Recipe of Wortsman et al. 2022, with a loss in place of an accuracy."""
    ranked = sorted(members, key=lambda member: bowl(vector(member)))
    ingredients: list[Sequence[float]] = []
    for member in ranked:
        with_it = vector(np.mean([*ingredients, member], axis=0).tolist())
        before = vector(np.mean(ingredients, axis=0).tolist()) if ingredients else None
        if before is not None:  # a tie would hang on how a mean is rounded
            assume(abs(bowl(with_it) - bowl(before)) > 1e-9)
        if before is None or bowl(with_it) <= bowl(before):
            ingredients.append(member)
    return vector(np.mean(ingredients, axis=0).tolist())


@given(
    st.lists(
        st.lists(st.integers(-9, 9).map(float), min_size=3, max_size=3), min_size=1, max_size=9
    )
)
def test_a_soup_is_the_recipe(members: list[list[float]]) -> None:
    losses = [bowl(vector(member)) for member in members]
    assume(len(set(losses)) == len(losses))
    torch.testing.assert_close(soup_of(members), literal_soup(members))


@given(runs)
def test_a_soup_is_never_worse_than_its_best_member(members: list[list[float]]) -> None:
    best = min(bowl(vector(member)) for member in members)
    assert bowl(soup_of(members)) <= best * (1 + 1e-9)


def test_a_soup_takes_in_what_leaves_its_loss_as_it_is() -> None:
    """The recipe asks that the loss does not rise, not that it falls."""
    torch.testing.assert_close(soup_of([[2.0, 0, 0], [-6.0, 0, 0]]), vector([-2, 0, 0]))


def test_a_soup_leaves_out_what_spoils_it() -> None:
    torch.testing.assert_close(
        soup_of([[1.0, 0, 0], [-1.1, 0, 0], [9, 9, 9]]), vector([-0.05, 0, 0])
    )


def test_a_soup_of_nothing_is_where_it_starts_and_a_restart_forgets_its_candidates() -> None:
    soup = average_of(GreedySoup(plan="greedy-soup"), Member(vector(START)))
    assert soup.weights(no_loss).tolist() == START
    soup.capture(Member(vector([1, 0, 0]), loss=1))
    soup.restart(Member(vector([3, 3, 3])))
    assert soup.weights(no_loss).tolist() == [3, 3, 3]
    soup.capture(Member(vector([2, 0, 0]), loss=4))
    assert soup.weights(no_loss).tolist() == [2, 0, 0]


# --- restarts --------------------------------------------------------------------------------


@pytest.mark.parametrize("include_start", [True, False])
def test_a_restart_forgets_all_members(include_start: bool) -> None:
    plan = EqualMean(include_start=include_start, phases=2)
    average = average_of(plan, Member(vector(START)))
    average.capture(Member(vector([1, 1, 1])))
    average.restart(Member(vector([3, 3, 3])))
    assert average.weights(no_loss).tolist() == [3, 3, 3]
    average.capture(Member(vector([5, 5, 5])))
    assert average.weights(no_loss).tolist() == ([4, 4, 4] if include_start else [5, 5, 5])


def test_a_restart_forgets_what_is_held_or_summed_up() -> None:
    last = average_of(LastCaptures(plan="last", captures=3, phases=2), Member(vector(START)))
    scored = average_of(weighted(), Member(vector(START)))
    for average in (last, scored):
        average.capture(Member(vector([1, 1, 1]), accuracy=0.9))
        average.restart(Member(vector([3, 3, 3])))
        assert average.weights(no_loss).tolist() == [3, 3, 3]
        average.capture(Member(vector([5, 5, 5]), accuracy=0.1))
        assert average.weights(no_loss).tolist() == [5, 5, 5]


# --- plans as settings -----------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "mean": {},
    "exponential": {"half_life_epochs": 2},
    "last": {"captures": 5},
    "score-weighted": {},
    "greedy-soup": {},
    "newest": {},
}


def read(content: dict[str, Any]) -> AveragingPlan:
    return TypeAdapter(AveragingPlan).validate_python(content)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_and_told_in_words(kind: str) -> None:
    plan = read({"plan": kind, "start_at_epoch": 2, **KINDS[kind]})
    assert plan.plan == kind
    assert plan.describe().endswith("captured every 1 epochs, from epoch 2")


def test_without_a_kind_it_is_the_mean() -> None:
    assert read({"capture_every_epochs": 2}) == EqualMean(capture_every_epochs=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"plan": "median"},
        {"plan": "exponential"},
        {"plan": "exponential", "half_life_epochs": 0},
        {"plan": "last", "captures": 0},
        {"plan": "greedy-soup", "phases": 2},
        {"captures": 5},
        {"capture_every_epochs": 0},
        {"start_at_epoch": -1},
    ],
)
def test_what_is_no_plan_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        read(wrong)
