"""The estimate of a study's time: probes that end soon, counts of what the loop does."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.resnet import Bottleneck
from typer.testing import CliRunner

from swabench import cli
from swabench.cli import plan
from swabench.data.idx import encode_idx
from swabench.runs import estimate as estimates
from swabench.runs import probes
from swabench.runs.estimate import Estimate, count_images, estimate
from swabench.runs.probes import Counts, LearnerCosts, Probes, try_out
from swabench.study.averaging import EqualMean, GreedySoup, ScoreWeighted
from swabench.study.inputs import DataSettings, SplitName
from swabench.study.loading import bundled_studies, load_study
from swabench.study.methods import Method
from swabench.study.optimizers import SGD
from swabench.study.published import PUBLISHED_SIZES, Sizes
from swabench.study.schedules import Constant
from swabench.study.stages import Stage
from swabench.study.study import Study
from swabench.study.trajectories import trajectories
from swabench.system.errors import InputError, SwabenchError
from swabench.training.backbone import frozen_part
from swabench.training.flat import flatten
from swabench.training.heads import StackedHeads, initial_head
from swabench.training.learner import Split
from swabench.training.loop import DataOrder, run_plans
from swabench.training.network import NetworkLearner
from tests.running import train

CPU = torch.device("cpu")


@pytest.fixture
def small_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet-50 with a block a stage instead of sixteen in all: the same maps, sooner made."""
    small = partial(ResNet, Bottleneck, [1, 1, 1, 1])
    monkeypatch.setattr(probes, "_backbone", lambda: small().eval())


class Machine:
    """A machine whose time passes only by the work done on it."""

    def __init__(self, each: float, fixed: float = 0.0) -> None:
        self.each, self.fixed = each, fixed
        self.now = 0.0
        self.tried: list[int] = []
        self.threads: set[int] = set()

    def work(self, images: int) -> None:
        self.tried.append(images)
        self.threads.add(torch.get_num_threads())
        self.now += self.fixed + images * self.each

    def try_out(self, fewest: int, some: int, most: int) -> probes.Trial:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(probes, "time", SimpleNamespace(perf_counter=lambda: self.now))
            return try_out(self.work, fewest, some, most, CPU)


# --- a probe -------------------------------------------------------------------------------


@given(st.floats(-6, 2), st.floats(-6, 0), st.integers(1, 2), st.integers(1, 5000))
def test_a_probe_ends_soon_and_is_right(each: float, fixed: float, fewest: int, most: int) -> None:
    machine = Machine(10**each, 10**fixed)
    trial = machine.try_out(fewest, 8 * fewest, most)
    assert max(machine.tried) <= most
    # Of what takes long a single call is made.
    assert machine.now <= max(machine.fixed + fewest * machine.each, 10 * probes.TOO_LONG)
    truth = machine.fixed + most * machine.each
    assert trial.of(trial.images) == pytest.approx(machine.fixed + trial.images * machine.each)
    if trial.images == fewest < most:  # already a single image takes long
        assert machine.fixed + fewest * machine.each > 2 * probes.ENOUGH
        assert trial.of(most) == pytest.approx(most / fewest * trial.seconds)
    elif machine.fixed < 2 * trial.images * machine.each:
        assert trial.of(most) == pytest.approx(truth)
    assert trial.of(most) >= 0.9999 * truth


def test_a_probe_reaches_the_studys_own_number_where_that_is_quick() -> None:
    machine = Machine(1e-5)
    assert machine.try_out(2, 16, 200).images == 200
    assert machine.tried[:5] == [2, 2, 16, 64, 200]


def test_a_probe_goes_on_until_it_can_tell_passes_from_updates() -> None:
    """With few images an update of all weights takes most of the time."""
    machine = Machine(each=0.005, fixed=0.2)
    assert machine.try_out(2, 16, 128).of(128) == pytest.approx(0.2 + 128 * 0.005)
    assert machine.tried[:3] == [2, 2, 16]


def test_what_is_slow_is_done_once_and_scaled() -> None:
    machine = Machine(7.0)
    assert machine.try_out(1, 2, 64).of(64) == pytest.approx(64 * 7)
    assert machine.tried == [1]


def test_a_probe_is_by_one_thread_and_leaves_the_number_as_it_was() -> None:
    before = torch.get_num_threads()
    machine = Machine(0.01)
    machine.try_out(2, 16, 64)
    assert machine.threads == {1}
    assert torch.get_num_threads() == before
    with pytest.raises(torch.OutOfMemoryError):
        try_out(full, 2, 16, 64, CPU)
    assert torch.get_num_threads() == before


def study_of(**changes: Any) -> Study:
    whole = load_study("smoke").model_dump()
    return Study.model_validate({**whole, "controls": None, "rate_sweep": None, **changes})


def probes_of(study: Study, device: torch.device = CPU) -> Probes:
    sizes = PUBLISHED_SIZES["mnist"]
    return Probes(study, sizes, count_images(study.data, sizes), device)


def test_threads_count_by_what_they_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "gain_by_threads", lambda *_: 4.0)
    some, machine = probes_of(study_of()), Machine(0.5)
    monkeypatch.setattr(probes, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    assert some._seconds("network", machine.work, 64) == pytest.approx(64 * 0.5 / 4)


@pytest.mark.parametrize(("by_all", "gain"), [(0.25, 4), (1.0, 1), (30.0, 1)])
def test_a_gain_is_one_at_least(
    by_all: float, gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where other work keeps the cores busy, all threads may take longer than one."""
    machine = Machine(by_all)
    monkeypatch.setattr(probes, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    trial = probes.Trial(images=1, seconds=1.0, each=1.0)
    assert probes.gain_by_threads(machine.work, trial, CPU) == gain
    assert probes.gain_by_threads(machine.work, trial, torch.device("cuda")) == 1


def test_a_gpu_is_probed_at_the_studys_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few images are bound by launches there, and a CUDA graph is of one size."""
    machine = Machine(1e-5)
    monkeypatch.setattr(probes, "synchronize", lambda device: None)
    monkeypatch.setattr(probes, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    probes_of(study_of(), torch.device("cuda"))._seconds("network", machine.work, 64)
    assert set(machine.tried) == {64}


# --- what it costs -------------------------------------------------------------------------


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("seconds", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("name", bundled_studies())
def test_every_bundled_study_is_estimated_in_seconds(
    name: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an image of 224 pixels takes so long, be it in training or not."""
    study = load_study(name)
    machine = Machine(seconds * (study.data.image_size / 224) ** 2)

    def once(work: Callable[[int], None], images: int, device: torch.device) -> float:
        machine.work(images)
        return machine.fixed + images * machine.each

    monkeypatch.setattr(probes, "_once", once)
    monkeypatch.setattr(probes, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    found = estimate(study, [(run, s) for s in study.seeds for run in study.run_names], CPU)
    assert machine.now < 5
    steps = 0 if study.finetune.trainable == "head" else study.finetune.epochs
    passes = found.training_seconds / machine.each / len(study.run_names) / len(study.seeds)
    assert passes > steps * 2000  # every epoch sees every image: thousands


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize(
    ("trainable", "caches", "size"),
    [("head", True, 28), ("head", False, 28), ("layer4", True, 40), ("all", True, 28)],
)
def test_learners_are_probed_as_they_are(
    trainable: str, caches: bool, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "ENOUGH", 0)
    monkeypatch.setattr(probes, "SHORT", 0)
    stage = {"trainable": trainable}
    base = load_study("smoke")
    study = study_of(
        data={**base.data.model_dump(), "image_size": size},
        backbone={"cache_features": caches, "standardize_features": False},
        pretrain={**base.pretrain.model_dump(), **stage},
        finetune={**base.finetune.model_dump(), **stage},
        seeds=1,
    )
    found = estimate(study, [("adam", 0), ("swa", 0)], CPU)
    assert 0 < found.training_seconds < math.inf
    assert (found.features_seconds > 0) == (caches and trainable != "all")


@pytest.mark.usefixtures("small_backbone")
def test_maps_are_those_of_layer_3() -> None:
    below = frozen_part(probes._backbone(), "layer4")
    for size in (28, 40, 224):
        data = DataSettings(image_size=size)
        some = probes_of(study_of(data=data.model_dump()))
        with torch.no_grad():
            expected = below(torch.zeros(1, 3, size, size)).shape[1:]
        assert some._maps().shape[1:] == expected


def test_costs_are_of_images_and_runs() -> None:
    """A score is of one image by one run's weights; a step of the batch and all runs."""
    made_up = Split(torch.randn(8, 5), torch.zeros(8, dtype=torch.long))
    splits: dict[SplitName, Split] = {"train": made_up, "test": made_up}
    learner = StackedHeads(splits, initial_head(5, 3, 0).expand(4, -1), SGD(name="sgd"), 3)
    asked: list[tuple[int, int]] = []

    def seconds(work: Callable[[int], None], most: int) -> float:
        work(6)
        asked.append((most, len(splits["test"])))
        return 1.2

    costs = LearnerCosts(learner, splits, 2, 10, seconds)
    assert (costs.score, costs.step, costs.reestimate) == (1.2 / 10 / 4, 1.2, 1.2 / 10)
    assert (costs.score, costs.step) == (0.03, 1.2)  # measured once
    assert asked == [(10, 6), (2, 6), (10, 6)]
    slow = LearnerCosts(learner, splits, 2, 10, lambda work, most: 12.0)
    assert (slow.score, slow.step, slow.reestimate) == (0.3, 3 * 0.3 * 4 * 2, 0.3)


# --- how often -----------------------------------------------------------------------------

CLASSES, TRAINING, SCORED, BATCH, EPOCHS = 3, 22, 12, 8, 4
CONSTANT = Constant(schedule="constant", learning_rate=0.01)
METHODS = {
    "sgd": Method(title="", rate=CONSTANT),
    "swa": Method(title="", rate=CONSTANT, averaging=EqualMean(capture_every_epochs=0.7)),
    "pswa": Method(title="", rate=CONSTANT, averaging=EqualMean(phases=2)),
}
SOUP = Method(title="", rate=CONSTANT, averaging=GreedySoup(plan="greedy-soup"))
WEIGHTED = Method(title="", rate=CONSTANT, averaging=ScoreWeighted(plan="score-weighted"))
SELECTION = 2  # of the images that are held out or of the test


class CountingNetwork(NetworkLearner):
    """Counts what it does."""

    steps = predictions = passes = 0

    def step(self, rows: Tensor, rates: Tensor) -> None:
        self.steps += 1
        super().step(rows, rates)

    def _scores(self, splits: Sequence[SplitName]) -> list[Tensor]:
        self.predictions += sum(len(self._splits[name]) for name in splits)
        return super()._scores(splits)

    def _reestimate(self) -> None:
        self.passes += len(self._splits["train"])
        super()._reestimate()


class CountingHeads(StackedHeads):
    """Counts what it does."""

    steps = predictions = passes = 0

    def step(self, rows: Tensor, rates: Tensor) -> None:
        self.steps += 1
        super().step(rows, rates)

    def predict(
        self, splits: Sequence[SplitName], weights: Tensor | None = None, *, running: bool = False
    ) -> tuple[list[Tensor], Tensor]:
        vectors = self.trajectories if weights is None else len(weights)
        self.predictions += vectors * sum(len(self._splits[name]) for name in splits)
        return super().predict(splits, weights)


def some_splits() -> dict[SplitName, Split]:
    def some(count: int) -> Split:
        return Split(torch.randn(count, 5), torch.arange(count) % CLASSES)

    return {"train": some(TRAINING), "validation": some(5), "test": some(SCORED - 5)}


def splits_with_selection() -> dict[SplitName, Split]:
    whole = some_splits()
    parts = (slice(SELECTION), slice(SELECTION, None))
    selection, validation = (
        Split(whole["validation"].inputs[part], whole["validation"].labels[part]) for part in parts
    )
    return {**whole, "validation": validation, "selection": selection}


def counted(
    stage: Stage, methods: tuple[Method, ...], selection: int = 0
) -> tuple[float, float, float]:
    """Steps, images predicted by a run, and images passed for BatchNorm: the estimate's counts."""
    found = []
    for key in ("step", "score", "reestimate"):
        costs = {"step": 0.0, "score": 0.0, "reestimate": 0.0, key: 1.0}
        cost = cast(LearnerCosts, SimpleNamespace(**costs))
        counts = Counts(TRAINING, SCORED - selection, selection)
        found.append(estimates._stage_seconds(stage, methods, counts, cost))
    return found[0], found[1], found[2]


def carry_out(
    learner: CountingNetwork | CountingHeads,
    methods: tuple[Method, ...],
    splits: dict[SplitName, Split] | None = None,
) -> None:
    order = DataOrder(TRAINING, BATCH, seed=0, stage=0)
    named = {str(number): method for number, method in enumerate(methods)}
    plans = run_plans(named, EPOCHS, order.steps_per_epoch)
    train(learner, plans, splits or some_splits(), order, EPOCHS)


def stage_of(**changes: Any) -> Stage:
    settings = {"epochs": EPOCHS, "batch_size": BATCH, "optimizer": {"name": "sgd"}, **changes}
    return Stage.model_validate(settings)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("batchnorm", ["train", "frozen", "first-epoch"])
def test_a_networks_work_is_counted_as_the_loop_does_it(name: str, batchnorm: str) -> None:
    stage = stage_of(trainable="all", batchnorm=batchnorm)
    network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES))
    learner = CountingNetwork(
        network,
        some_splits(),
        *flatten(network),
        SGD(name="sgd"),
        batchnorm_steps=stage.batchnorm_steps(3),
    )
    carry_out(learner, (METHODS[name],))
    found = (learner.steps, learner.predictions, learner.passes)
    assert counted(stage, (METHODS[name],)) == found


def test_what_a_soup_tries_is_counted() -> None:
    splits, stage = splits_with_selection(), stage_of(trainable="all", batchnorm="train")
    network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES))
    learner = CountingNetwork(network, splits, *flatten(network), SGD(name="sgd"))
    carry_out(learner, (SOUP,), splits)
    found = counted(stage, (SOUP,), SELECTION)
    assert found == (learner.steps, learner.predictions, learner.passes)


@pytest.mark.parametrize(
    "names", [["sgd"], ["swa"], ["sgd", "swa", "pswa"], ["pswa", "sgd", "weighted"]]
)
def test_heads_work_is_counted_as_the_loop_does_it(names: list[str]) -> None:
    every = {**METHODS, "weighted": WEIGHTED}
    methods = tuple(every[name] for name in names)
    paths = len(trajectories({name: every[name] for name in names}))
    start = initial_head(5, CLASSES, 0).expand(paths, -1)
    splits = splits_with_selection()
    learner = CountingHeads(splits, start, SGD(name="sgd"), CLASSES)
    carry_out(learner, methods, splits)
    found = counted(stage_of(), methods, SELECTION)
    assert found == (learner.steps, learner.predictions, 0)


def test_images_are_those_of_the_data_set() -> None:
    for name, expected in {
        "cifar10": Counts(training=45_000, measured=15_000),
        "mnist": Counts(training=55_000, measured=12_500, selection=2500),
        "smoke": Counts(training=2000, measured=1250, selection=250),
    }.items():
        data = load_study(name).data
        assert count_images(data, PUBLISHED_SIZES[data.dataset]) == expected


@pytest.mark.parametrize(
    ("key", "most"), [("validation_images", 99), ("training_images", 80), ("test_images", 40)]
)
def test_more_images_than_there_are_is_an_error_that_names_the_key(key: str, most: int) -> None:
    sizes = Sizes(100, 40, 1, 28, 28, 10)
    few = {"validation_images": 20, "test_images": 5}
    count_images(DataSettings.model_validate({**few, key: most}), sizes)
    with pytest.raises(InputError, match=rf"data\.{key}: {most + 1} images, .* {most};"):
        count_images(DataSettings.model_validate({**few, key: most + 1}), sizes)


class Even(Probes):
    """Everything takes a second."""

    def frozen(self, boundary: str) -> float:
        return 1.0

    def learner(self, stage: Stage, runs: int) -> LearnerCosts:
        return cast(LearnerCosts, SimpleNamespace(step=1.0, score=0.0, reestimate=0.0))


def test_seeds_and_methods_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "Probes", Even)
    study = study_of()
    steps, features = 16, 3500.0  # of an epoch of 2,000 images; images, once for all
    assert estimate(study, [], CPU) == Estimate(0, 0)
    assert estimate(study, [("adam", 0)], CPU) == Estimate(features, steps)
    both = [("adam", 0), ("adam", 1), ("sgd", 0), ("swa", 0), ("swa", 1)]
    # Heads of a seed share their steps.
    assert estimate(study, both, CPU) == Estimate(features, 2 * steps + 2 * 3 * steps)
    apart = study.model_copy(update={"backbone": study.backbone.model_copy(update={"cache_features": False})})  # noqa: E501  # fmt: skip
    assert estimate(apart, both, CPU) == Estimate(features, 2 * steps + 3 * 3 * steps)


def test_frozen_layers_are_run_once_below_every_boundary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "Probes", Even)
    finetune = {**load_study("smoke").finetune.model_dump(), "trainable": "layer4"}
    frozen = {**finetune, "batchnorm": "frozen"}
    both = [("adam", 0), ("sgd", 0)]
    assert estimate(study_of(finetune=frozen), both, CPU).features_seconds == 2 * 3500
    # Standardisation asks for the final layer's features, whatever trains.
    assert estimate(study_of(finetune=frozen), both[1:], CPU).features_seconds == 2 * 3500
    network = load_study("layer4")
    assert estimate(network, [("adam", 0), ("sgd", 0)], CPU).features_seconds == 25_000
    assert estimate(load_study("network"), [("sgd", 0)], CPU).features_seconds == 0


def test_frozen_layers_are_run_once_for_every_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "Probes", Even)
    sources = load_study("mnist-sources")
    every = [(name, seed) for seed in sources.seeds for name in sources.run_names]
    assert estimate(sources, every, CPU).features_seconds == 11 * 70_000
    assert estimate(sources, [("swa", 1), ("swa", 3)], CPU).features_seconds == 2 * 70_000
    assert estimate(sources, [("swa", 1), ("swa", 2)], CPU).features_seconds == 70_000
    together = study_of(seed_draws=["head", "backbone"])
    both = [("adam", 0), ("adam", 1), ("sgd", 1)]
    assert estimate(together, both, CPU).features_seconds == 2 * 3500
    # Of a few training images, each split has others.
    data = {**load_study("smoke").data.model_dump(), "test_images": None}
    few = study_of(seed_draws=["split"], data=data)
    assert estimate(few, both, CPU).features_seconds == 2 * 12_500


def test_a_folder_of_ones_own_has_its_own_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, count in (("train", 100), ("t10k", 40)):
        labels = (np.arange(count) % 7).astype(np.uint8)
        pixels = np.zeros((count, 9, 9, 3), dtype=np.uint8)
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(encode_idx(pixels))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(encode_idx(labels))
    monkeypatch.setattr(estimates, "Probes", Even)
    data = {"dataset": "folder", "folder": tmp_path, "validation_images": 20}
    found = estimate(study_of(data=data), [("adam", 0)], CPU)
    assert found == Estimate(100 + 40, 1)
    with pytest.raises(InputError, match="nowhere"):
        estimate(study_of(data={**data, "folder": tmp_path / "nowhere"}), [("adam", 0)], CPU)


# --- on the command line -------------------------------------------------------------------


def full(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


@pytest.mark.usefixtures("small_backbone")
def test_a_device_too_small_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NetworkLearner, "predict", full)
    arguments = ["validate", "--config", "network", "--results", str(tmp_path)]
    done = CliRunner().invoke(cli.app, [*arguments, "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "the time cannot be estimated: out of memory" in done.output
    assert "lower batch_size" in done.output
    with pytest.raises(SwabenchError, match="out of memory"):
        estimate(load_study("network"), [("sgd", 0)], CPU)


def test_a_study_that_asks_for_too_many_images_is_wrong_input(tmp_path: Path) -> None:
    study = tmp_path / "greedy.yaml"
    study.write_text("extends: smoke\ntitle: Greedy\ndata: {validation_images: 60000}\n")
    arguments = ["validate", "--config", str(study), "--results", str(tmp_path)]
    done = CliRunner().invoke(cli.app, [*arguments, "--device", "cpu"])
    assert done.exit_code == 2
    assert "data.validation_images" in done.output


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: device-side assert triggered\nmore"),
        SwabenchError("out of memory"),
        KeyError(),
    ],
)
def test_no_failing_hint_ends_a_finished_study(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> Estimate:
        raise error

    monkeypatch.setattr("swabench.system.device.choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr("swabench.runs.estimate.estimate", fails)
    (told,) = plan.next_studies(load_study("smoke"), "auto")
    assert "the time cannot be estimated: " in told
    assert "\n" not in told


def test_the_next_study_is_named_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swabench.runs.estimate.estimate", lambda *_: Estimate(1, 7200))
    study = load_study("smoke")
    assert plan.next_studies(study, "cpu") == []
    monkeypatch.setattr("swabench.system.device.choose_device", lambda name: torch.device("cuda"))
    (told,) = plan.next_studies(study, "auto")
    assert "--config network` fine-tunes all of ResNet-50, in about 2.0 h" in told
