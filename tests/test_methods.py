import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swabench.cli.drawing import draw_rate
from swabench.study.averaging import EqualMean, GreedySoup
from swabench.study.loading import bundled_studies, load_study
from swabench.study.methods import Method, Timeline
from swabench.study.optimizers import SGD
from swabench.study.schedules import (
    Constant,
    Cosine,
    Cyclical,
    Linear,
    Multiplicative,
    Schedule,
)
from swabench.system.errors import InputError
from tests.reference import torch_optimizer

CONSTANT = Constant(schedule="constant", learning_rate=0.01)
SAWTOOTH = Cyclical(schedule="cyclical", high=0.01, low=0.005)
RATES: list[Schedule] = [
    SAWTOOTH,
    Linear(schedule="linear", learning_rate=0.01),
    Cosine(schedule="cosine", learning_rate=0.01),
    Multiplicative(schedule="multiplicative", learning_rate=0.01, factor=0.5, every_epochs=1),
    Constant(schedule="constant", learning_rate=0.01, warmup_epochs=1, cooldown_epochs=1),
]


def test_plain_sgd_neither_captures_nor_restarts() -> None:
    timeline = Method(title="SGD", rate=CONSTANT).timeline(3, 4)
    assert len(timeline.rates) == 12
    assert not timeline.captures.any()
    assert not timeline.restarts.any()


def test_swa_captures_at_the_end_of_every_epoch() -> None:
    timeline = Method(title="SWA", rate=CONSTANT, averaging=EqualMean()).timeline(3, 4)
    assert np.flatnonzero(timeline.captures).tolist() == [3, 7, 11]


@given(st.sampled_from([0.25, 1 / 3, 0.5, 1.0, 2.0]), st.integers(1, 4), st.integers(3, 60))
def test_captures_fall_on_the_sawtooths_minimum(cycle: float, cycles: int, steps: int) -> None:
    rate = Cyclical(schedule="cyclical", high=0.01, low=0.005, cycle_epochs=cycle)
    method = Method(
        title="SWA", rate=rate, averaging=EqualMean(capture_every_epochs=cycle * cycles)
    )
    timeline = method.timeline(24, steps)
    assert timeline.captures.any()
    assert np.allclose(timeline.rates[timeline.captures], rate.low)


@given(st.sampled_from(RATES), st.integers(1, 4), st.integers(2, 4), st.integers(1, 10))
def test_every_phase_is_a_whole_swa(
    rate: Schedule, phases: int, phase_epochs: int, steps: int
) -> None:
    epochs = phases * phase_epochs
    swa = Method(title="SWA", rate=rate, averaging=EqualMean())
    pswa = Method(title="PSWA", rate=rate, averaging=EqualMean(phases=phases))
    one, all_phases = swa.timeline(phase_epochs, steps), pswa.timeline(epochs, steps)
    np.testing.assert_array_equal(all_phases.rates, np.tile(one.rates, phases))
    np.testing.assert_array_equal(all_phases.captures, np.tile(one.captures, phases))
    starts = [phase * phase_epochs * steps for phase in range(1, phases)]
    assert np.flatnonzero(all_phases.restarts).tolist() == starts


def test_what_does_not_fit_is_named() -> None:
    def method(rate: Cyclical | Constant = CONSTANT, **plan: float) -> Method:
        return Method(title="m", rate=rate, averaging=EqualMean(**plan))  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"phases: 3 phases do not divide 10 epochs; 1, 2, 5, 10"):
        method(phases=3).check(10)
    with pytest.raises(ValueError, match="longer than a phase"):
        method(phases=3, capture_every_epochs=4).check(9)
    with pytest.raises(ValueError, match="miss the rate's minimum"):
        method(SAWTOOTH, capture_every_epochs=1.5).check(9)
    ramps = Constant(schedule="constant", learning_rate=1, warmup_epochs=2, cooldown_epochs=2)
    method(ramps).check(4)
    with pytest.raises(ValueError, match="4 epochs together, more than there are in a phase"):
        method(ramps, phases=3).check(9)
    for plan in (None, EqualMean()):
        with pytest.raises(ValueError, match=r"4 epochs together, more than there are$"):
            Method(title="m", rate=ramps, averaging=plan).check(3)
    method(ramps, phases=2).check(8)


def test_a_plan_fits_its_phases_to_the_last_epoch() -> None:
    """What is just possible is taken, in one phase as in several; what is not is refused."""

    def method(**plan: float) -> Method:
        return Method(title="m", rate=CONSTANT, averaging=EqualMean(**plan))  # type: ignore[arg-type]

    method(capture_every_epochs=3).check(3)
    method(phases=3, capture_every_epochs=3).check(9)
    for plan in ({"start_at_epoch": 4.0}, {"start_at_epoch": 2.5, "capture_every_epochs": 2.5}):
        method(**plan).check(5)
        method(phases=2, **plan).check(10)
        more = {**plan, "start_at_epoch": plan["start_at_epoch"] + 0.1}
        for phases in (1, 2):
            with pytest.raises(ValueError, match="leaves no capture in 5 epochs; choose a smaller"):
                method(phases=phases, **more).check(5 * phases)


def test_captures_are_whole_cycles_of_a_sawtooth() -> None:
    def method(cycle: float, every: float) -> Method:
        rate = Cyclical(schedule="cyclical", high=0.01, low=0.005, cycle_epochs=cycle)
        return Method(title="m", rate=rate, averaging=EqualMean(capture_every_epochs=every))

    for cycle, every in ((0.1, 0.3), (2, 4), (1, 1), (0.7, 2.1)):  # 0.3 / 0.1 is no 3 in floats
        method(cycle, every).check(9)
    for cycle, every in ((1e5, 1), (2, 1), (1, 1.5), (1, 1.001), (4, 3)):
        with pytest.raises(ValueError, match="miss the rate's minimum"):
            method(cycle, every).check(9)


def test_a_greedy_soup_keeps_no_ensemble() -> None:
    for ensemble in (None, False):
        plan = GreedySoup(plan="greedy-soup", ensemble=ensemble)
        Method(title="m", rate=CONSTANT, averaging=plan).check(3)
    plan = GreedySoup(plan="greedy-soup", ensemble=True)
    with pytest.raises(ValueError, match=r"averaging\.ensemble: a greedy soup keeps no ensemble"):
        Method(title="m", rate=CONSTANT, averaging=plan).check(3)


def test_nothing_is_captured_before_the_epoch_at_which_captures_start() -> None:
    """In iterations: of five an epoch, 1.4 epochs are seven, and the eighth may be captured."""
    plan = EqualMean(capture_every_epochs=0.2, start_at_epoch=1.4, phases=2)
    timeline = Method(title="m", rate=CONSTANT, averaging=plan).timeline(4, 5)
    assert np.flatnonzero(timeline.captures).tolist() == [7, 8, 9, 17, 18, 19]
    often = EqualMean(capture_every_epochs=0.5, start_at_epoch=1)
    timeline = Method(title="m", rate=CONSTANT, averaging=often).timeline(2, 4)
    assert np.flatnonzero(timeline.captures).tolist() == [5, 7]


@pytest.mark.parametrize("name", bundled_studies())
def test_bundled_timelines_are_those_of_torchs_schedulers_and_of_their_plans(name: str) -> None:
    study, steps = load_study(name), 8
    epochs = study.finetune.epochs
    for method in study.methods.values():
        plan, timeline = method.averaging, method.timeline(epochs, steps)
        phases = plan.phases if plan else 1
        np.testing.assert_allclose(
            timeline.rates, phases * stepped(method, epochs // phases, steps)
        )
        captured = np.flatnonzero(timeline.captures) + 1
        every = round(plan.capture_every_epochs * steps) if plan else epochs * steps + 1
        length = epochs * steps // phases
        whole = [k * length + i for k in range(phases) for i in range(every, length + 1, every)]
        assert captured.tolist() == whole
        starts = [k * length for k in range(1, phases)]
        assert np.flatnonzero(timeline.restarts).tolist() == starts
        if plan:  # nothing that was trained is left out of the average
            assert captured[-1] == epochs * steps


def stepped(method: Method, epochs: int, steps: int) -> list[float]:
    """The rates of every iteration, as torch's scheduler sets them."""
    parameter = torch.nn.Linear(1, 1)
    optimizer, scheduler, per_epoch = torch_optimizer(
        parameter, method, SGD(name="sgd"), steps, epochs
    )
    found = []
    for _ in range(epochs):
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if not per_epoch:
                scheduler.step()
        if per_epoch:
            scheduler.step()
    return found


def test_a_plan_that_captures_nothing_in_whole_iterations_is_refused() -> None:
    plan = EqualMean(capture_every_epochs=0.5, start_at_epoch=2.5)
    method = Method(title="m", rate=CONSTANT, averaging=plan)
    method.check(3)
    with pytest.raises(InputError, match="no capture"):
        method.timeline(3, 3)
    assert method.timeline(3, 10).captures.sum() == 1


def test_the_interval_between_captures_is_of_whole_iterations() -> None:
    plan = EqualMean(capture_every_epochs=0.1)
    timeline = Method(title="m", rate=CONSTANT, averaging=plan).timeline(4, 24)
    assert timeline.interval_epochs == pytest.approx(2 / 24)
    assert np.diff(np.flatnonzero(timeline.captures)).tolist() == [2] * 47


# --- drawn -----------------------------------------------------------------------------------


def test_a_drawing_has_the_rates_mean_in_bars_and_under_it_captures_and_restarts() -> None:
    rates = np.array([0.8, 0.8, 0.4, 0.4, 0.1, 0.3, 0.001, 0.001, 0.8, 0.0, 0.7, 0.7])
    captures = np.isin(np.arange(12), [3, 7, 8, 11])
    restarts = np.isin(np.arange(12), [8])
    timeline = Timeline(rates, captures, restarts)
    # A rate is never drawn as nothing, and where a restart is, a capture does not hide it.
    assert draw_rate(timeline, 0.8, 3, 2) == ("█▄▂▁▄▇", " o o|o")
    assert draw_rate(timeline, 1.6, 3, 1) == ("▃▁▃", "oo|")
    assert [len(line) for line in draw_rate(timeline, 0.8, 2)] == [8, 8]


def test_more_iterations_than_memory_holds_are_told_at_once() -> None:
    method = Method(title="", rate=Constant(schedule="constant", learning_rate=0.1))
    with pytest.raises(InputError, match=r"^epochs: 100,000 epochs of 1,001 iterations .*lower ep"):
        method.timeline(100_000, 1001)
