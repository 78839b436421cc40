import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, LinearLR, StepLR

from swabench.study.schedules import (
    Constant,
    Cosine,
    Cyclical,
    Linear,
    Multiplicative,
    Triangular,
    iterations,
)
from tests.reference import sawtooth

rates = st.floats(1e-6, 1.0)


def stepped_per_epoch(scheduler, epochs: int, steps: int) -> list[float]:  # type: ignore[no-untyped-def]
    found = []
    for _ in range(epochs):
        found += [scheduler.get_last_lr()[0]] * steps
        scheduler.optimizer.step()
        scheduler.step()
    return found


def optimizer(lr: float) -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1)], lr=lr)


def test_constant() -> None:
    assert (Constant(schedule="constant", learning_rate=0.005).rates(7, 3) == 0.005).all()


@given(rates, st.floats(0.01, 1.0), st.integers(1, 4), st.integers(1, 5), st.integers(1, 9))
def test_multiplicative_is_torchs_step_lr(
    rate: float, factor: float, every: int, steps: int, epochs: int
) -> None:
    ours = Multiplicative(
        schedule="multiplicative", learning_rate=rate, factor=factor, every_epochs=every
    )
    theirs = stepped_per_epoch(StepLR(optimizer(rate), every, factor), epochs, steps)
    np.testing.assert_allclose(ours.rates(epochs * steps, steps), theirs, rtol=1e-12)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(1, 25))
def test_triangular_is_torchs_cyclic_lr(up: int, down: int, steps: int, epochs: int) -> None:
    ours = Triangular(schedule="triangular", low=0.002, high=0.01, up_epochs=up, down_epochs=down)
    scheduler = CyclicLR(optimizer(0.002), 0.002, 0.01, up, down, cycle_momentum=False)
    theirs = stepped_per_epoch(scheduler, epochs, steps)
    np.testing.assert_allclose(ours.rates(epochs * steps, steps), theirs, rtol=1e-9)


@given(rates, st.integers(1, 40))
def test_linear_is_torchs_linear_lr(rate: float, steps: int) -> None:
    scheduler = LinearLR(optimizer(rate), start_factor=1, end_factor=0, total_iters=steps)
    ours = Linear(schedule="linear", learning_rate=rate).rates(steps, 3)
    np.testing.assert_allclose(ours, stepped_per_epoch(scheduler, steps, 1), rtol=1e-9, atol=1e-15)


@given(rates, st.integers(1, 40))
def test_cosine_is_torchs_cosine_annealing_lr(rate: float, steps: int) -> None:
    scheduler = CosineAnnealingLR(optimizer(rate), T_max=steps)
    ours = Cosine(schedule="cosine", learning_rate=rate).rates(steps, 3)
    np.testing.assert_allclose(ours, stepped_per_epoch(scheduler, steps, 1), rtol=1e-9, atol=1e-15)


def test_warm_up_and_cooldown_multiply_the_rate() -> None:
    flat = Constant(schedule="constant", learning_rate=8, warmup_epochs=1, cooldown_epochs=0.5)
    np.testing.assert_allclose(flat.rates(12, 4), [2, 4, 6, 8, 8, 8, 8, 8, 8, 8, 8, 4])
    both = Linear(schedule="linear", learning_rate=12, warmup_epochs=0.5)
    np.testing.assert_allclose(both.rates(12, 4), [6, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1])


@given(st.sampled_from([0.5, 1.0, 2.0, 3.0]), st.integers(2, 20).map(lambda k: 2 * k))
def test_cyclical_is_the_papers_formula(cycle: float, steps: int) -> None:
    ours = Cyclical(schedule="cyclical", high=0.01, low=0.005, cycle_epochs=cycle)
    alpha = sawtooth(ours, steps)
    found = ours.rates(6 * steps, steps)
    np.testing.assert_allclose(found, [alpha(i) for i in range(6 * steps)], rtol=1e-12)


def test_cyclical_falls_to_its_minimum_and_jumps_back() -> None:
    found = Cyclical(schedule="cyclical", high=0.01, low=0.005).rates(8, 4)
    np.testing.assert_allclose(found, 2 * [0.00875, 0.0075, 0.00625, 0.005])


def test_cyclical_with_cycle_of_one_iteration_is_constant_at_the_low_rate() -> None:
    # "for constant learning rate c = 1" (Algorithm 1)
    found = Cyclical(schedule="cyclical", high=0.01, low=0.005, cycle_epochs=0.25).rates(8, 4)
    assert (found == 0.005).all()


def test_a_span_is_the_nearest_number_of_iterations_and_one_at_least() -> None:
    assert [iterations(epochs, 10) for epochs in (0.26, 0.24, 0.19, 2)] == [3, 2, 2, 20]
    assert iterations(0.04, 10) == 1
    short = Cyclical(schedule="cyclical", high=0.2, low=0.1, cycle_epochs=0.01, warmup_epochs=0.01)
    assert (short.rates(4, 10) == 0.1).all()


@pytest.mark.parametrize("kind", [Cyclical, Triangular])
def test_low_above_high_is_refused(kind: type) -> None:
    spans = {"up_epochs": 1, "down_epochs": 1} if kind is Triangular else {}
    with pytest.raises(ValueError, match=r"low .* is above high"):
        kind(schedule=kind.__name__.lower(), low=0.02, high=0.01, **spans)
