from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from swabench.study.averaging import AveragingPlan
from swabench.training.running_mean import RunningMean

vectors = st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3)


def mean_of(plan: AveragingPlan, start: list[float], members: list[list[float]]) -> torch.Tensor:
    running = RunningMean([plan], torch.tensor([start], dtype=torch.float64))
    for member in members:
        running.capture(0, torch.tensor(member, dtype=torch.float64))
    return running.value[0]


@given(vectors, st.lists(vectors, min_size=1, max_size=12))
def test_equals_the_plain_mean_with_the_start_as_first_member(
    start: list[float], members: list[list[float]]
) -> None:
    expected = torch.tensor([start, *members], dtype=torch.float64).mean(0)
    torch.testing.assert_close(mean_of(AveragingPlan(), start, members), expected)


@given(vectors, st.lists(vectors, min_size=1, max_size=12))
def test_without_the_start_it_is_torchs_averaged_model(
    start: list[float], members: list[list[float]]
) -> None:
    found = mean_of(AveragingPlan(include_start=False), start, members)
    torch.testing.assert_close(found, averaged_model(AveragedModel, start, members))


@given(vectors, st.lists(vectors, min_size=1, max_size=12), st.floats(0.0, 0.99))
def test_decay_is_torchs_exponential_average(
    start: list[float], members: list[list[float]], decay: float
) -> None:
    found = mean_of(AveragingPlan(decay=decay), start, members)

    def ema(model: nn.Module) -> AveragedModel:
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        averaged.update_parameters(model)  # the start is the first member
        return averaged

    torch.testing.assert_close(found, averaged_model(ema, start, members))


def test_decay_zero_keeps_the_newest_alone() -> None:
    found = mean_of(AveragingPlan(decay=0.0), [1, 1, 1], [[2, 2, 2], [5, 6, 7]])
    assert found.tolist() == [5, 6, 7]


def test_before_any_capture_the_average_is_the_start() -> None:
    assert mean_of(AveragingPlan(), [1, 2, 3], []).tolist() == [1, 2, 3]


def test_restart_forgets_all_members_and_other_runs_are_left_alone() -> None:
    running = RunningMean([AveragingPlan()] * 2, torch.zeros(2, 1))
    running.capture(0, torch.ones(1))
    running.capture(1, torch.ones(1))
    running.restart(0, torch.full((1,), 3.0))
    running.capture(0, torch.full((1,), 5.0))
    assert running.value.tolist() == [[4.0], [0.5]]


@pytest.mark.parametrize("decay", [None, 0.25])
@given(vectors, vectors, st.lists(vectors, min_size=1, max_size=5))
def test_after_a_restart_the_start_is_a_member_or_not_as_the_plan_says(
    decay: float | None, start: list[float], again: list[float], members: list[list[float]]
) -> None:
    """A restarted mean is one that began there."""
    for include in (True, False):
        plan = AveragingPlan(include_start=include, decay=decay)
        running = RunningMean([plan], torch.tensor([start], dtype=torch.float64))
        running.capture(0, torch.tensor(start, dtype=torch.float64))
        running.restart(0, torch.tensor(again, dtype=torch.float64))
        for member in members:
            running.capture(0, torch.tensor(member, dtype=torch.float64))
        torch.testing.assert_close(running.value[0], mean_of(plan, again, members))
        if not include and decay is None:
            expected = torch.tensor(members, dtype=torch.float64).mean(0)
            torch.testing.assert_close(running.value[0], expected)


def test_a_fraction_of_one_is_refused_as_decay() -> None:
    with pytest.raises(ValueError, match="less than 1"):
        AveragingPlan(decay=1.0)


def averaged_model(
    make: Callable[[nn.Module], AveragedModel], start: list[float], members: list[list[float]]
) -> torch.Tensor:
    model = nn.Linear(1, 3, bias=False, dtype=torch.float64)
    model.weight.data[:, 0] = torch.tensor(start, dtype=torch.float64)
    averaged = make(model)
    for member in members:
        model.weight.data[:, 0] = torch.tensor(member, dtype=torch.float64)
        averaged.update_parameters(model)
    [weight] = averaged.module.parameters()
    return weight.detach()[:, 0]
