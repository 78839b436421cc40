"""Which work stands for which part of a study's time, and how much of it is tried."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.resnet import Bottleneck

from swabench.runs import estimate as estimates
from swabench.runs import probes
from swabench.runs.estimate import estimate
from swabench.runs.features import batch_size
from swabench.runs.probes import Counts, LearnerCosts, Probes
from swabench.study.inputs import SplitName
from swabench.study.loading import load_study
from swabench.study.optimizers import SGD
from swabench.study.published import PUBLISHED_SIZES
from swabench.study.stages import Stage
from swabench.study.study import Study
from swabench.training.flat import flatten
from swabench.training.heads import StackedHeads, initial_head
from swabench.training.learner import Split
from swabench.training.loop import DataOrder, run_plans
from swabench.training.network import NetworkLearner
from tests.running import train
from tests.test_estimate import (
    BATCH,
    CLASSES,
    EPOCHS,
    METHODS,
    SCORED,
    TRAINING,
    CountingNetwork,
    Even,
    counted,
    some_splits,
    stage_of,
    study_of,
)

CPU = torch.device("cpu")


@pytest.fixture
def _small_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(ResNet, Bottleneck, [1, 1, 1, 1])
    monkeypatch.setattr(probes, "_backbone", lambda: small().eval())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is measured, and for how many images; each takes half a second."""
    found: list[tuple[str, int]] = []

    def seconds(self: Probes, kind: str, work: Any, most: int) -> float:
        found.append((kind, most))
        return most * 0.5

    monkeypatch.setattr(Probes, "_seconds", seconds)
    return found


def probes_of(study: Study, counts: Counts, name: str = "mnist") -> Probes:
    return Probes(study, PUBLISHED_SIZES[name], counts, CPU)


def network_of(batch: int = 8, evaluation: int = 12, **changes: Any) -> Study:
    base = load_study("smoke")
    stage = {
        "trainable": "layer4", "batch_size": batch, "evaluation_batch_size": evaluation,
        "batchnorm": "frozen", **changes,
    }  # fmt: skip
    return study_of(finetune={**base.finetune.model_dump(), **stage})


@pytest.mark.parametrize(
    ("counts", "step", "score"),
    [(Counts(2000, 900), 8, 12), (Counts(5, 900), 5, 5), (Counts(2000, 7), 8, 7)],
)
@pytest.mark.usefixtures("_small_backbone")
def test_no_more_images_are_tried_than_a_study_takes_at_once(
    asked: list[tuple[str, int]], counts: Counts, step: int, score: int
) -> None:
    study = network_of()
    costs = probes_of(study, counts).learner(study.finetune, 1)
    assert (costs.score, costs.step) == (0.5, 3 * 0.5 * step)  # too slow to try a step
    assert asked == [("network", score)]
    asked.clear()
    heads = study_of()
    few = probes_of(heads, counts).learner(heads.finetune, 3)
    assert few.score == pytest.approx(0.5 / 3)
    evaluated = min(probes.HEAD_ROWS, counts.training, counts.measured)
    assert asked == [("heads", evaluated)]


def test_a_step_of_heads_is_of_the_stages_batch(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "SLOW", 10.0)
    study = study_of()
    costs = probes_of(study, Counts(2000, 900)).learner(study.finetune, 3)
    assert costs.step == study.finetune.batch_size * 0.5
    assert asked[-1] == ("heads", study.finetune.batch_size)


def test_features_of_heads_are_as_many_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, torch.Size]] = []

    class Noted:
        runs = 1

        def __init__(self, splits: Any, start: Tensor, *_: Any) -> None:
            made.append((len(splits["train"]), start.shape))

    monkeypatch.setattr(probes, "StackedHeads", Noted)
    study = study_of()
    for training in (50, 9000):
        probes_of(study, Counts(training, 900)).learner(study.finetune, 3)
    assert made == [(50, torch.Size([3, 20490])), (probes.HEAD_ROWS, torch.Size([3, 20490]))]


def test_stages_that_take_other_time_are_measured_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def anew(self: Probes, stage: Stage) -> object:
        return object()

    monkeypatch.setattr(Probes, "_network", anew)
    base = network_of()
    some = probes_of(base, Counts(2000, 900))
    first = some.learner(base.finetune, 1)
    same = network_of(optimizer={"name": "adam"}).finetune
    assert some.learner(same, 1) is first
    others: list[dict[str, Any]] = [
        {"batch": 9}, {"evaluation": 13}, {"precision": "bfloat16"}, {"trainable": "all"},
    ]  # fmt: skip
    assert len({id(some.learner(network_of(**other).finetune, 1)) for other in others}) == 4
    assert first not in [some.learner(network_of(**other).finetune, 1) for other in others]


@pytest.mark.usefixtures("_small_backbone")
def test_networks_are_probed_in_the_number_formats_of_the_study(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[dict[str, Any]] = []

    class Noted(NetworkLearner):
        def __init__(self, *given: Any, **options: Any) -> None:
            made.append(options)
            super().__init__(*given, **options)

    monkeypatch.setattr(probes, "NetworkLearner", Noted)
    backbone = {**load_study("smoke").backbone.model_dump(), "cache_features": False}
    backbone["precision"] = "bfloat16"
    study = network_of(evaluation=13, precision="bfloat16")
    study = study.model_copy(update={"backbone": type(study.backbone).model_validate(backbone)})
    probes_of(study, Counts(2000, 900)).learner(study.finetune, 1)
    (options,) = made
    assert (options["precision"], options["evaluation_batch"]) == ("bfloat16", 13)
    weights = [p for p in options["frozen"].parameters() if p.is_floating_point()]
    assert {p.dtype for p in weights} == {torch.bfloat16}


def test_a_step_takes_its_rows_from_the_images_that_were_made() -> None:
    """Whatever was passed through for BatchNorm before it."""
    made_up = Split(torch.randn(8, 5), torch.zeros(8, dtype=torch.long))
    splits: dict[SplitName, Split] = {"train": made_up, "test": made_up}
    learner = StackedHeads(splits, initial_head(5, 3, 0).expand(1, -1), SGD(name="sgd"), 3)

    def seconds(work: Callable[[int], None], most: int) -> float:
        work(3)
        return 0.1

    costs = LearnerCosts(learner, splits, 2, 10, seconds)
    assert costs.reestimate == pytest.approx(0.01)
    assert len(splits["train"]) == 3
    assert costs.step == pytest.approx(0.1)
    assert splits["train"] is made_up


@pytest.mark.usefixtures("_small_backbone")
def test_frozen_layers_cost_a_share_of_their_batch(asked: list[tuple[str, int]]) -> None:
    assert probes_of(study_of(), Counts(2000, 900)).frozen("head") == 0.5
    assert asked == [("network", batch_size(CPU, study_of().data.image_size))]


def test_made_up_images_are_as_large_as_the_data_sets() -> None:
    shapes = [
        tuple(probes_of(study_of(), Counts(9, 9), name)._images().shape[1:])
        for name in ("mnist", "cifar10")
    ]
    assert shapes == [(1, 28, 28), (3, 32, 32)]


@pytest.mark.parametrize(
    ("size", "begin"), [(28, (2, 16)), (32, (2, 12)), (33, (1, 11)), (224, (1, 2))]
)
def test_the_larger_the_images_the_fewer_are_tried_first(
    monkeypatch: pytest.MonkeyPatch, size: int, begin: tuple[int, int]
) -> None:
    tried: list[tuple[int, ...]] = []

    def noted(work: Any, *numbers: Any) -> probes.Trial:
        tried.append(numbers[:3])
        return probes.Trial(1, 1.0, 1.0)

    monkeypatch.setattr(probes, "try_out", noted)
    data = {**load_study("smoke").data.model_dump(), "image_size": size}
    probes_of(study_of(data=data), Counts(9, 9))._seconds("network", lambda images: None, 64)
    assert tried == [(*begin, 64)]


def test_heads_and_networks_gain_by_threads_each_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gains = iter((2.0, 4.0))
    monkeypatch.setattr(probes, "gain_by_threads", lambda *_: next(gains))
    monkeypatch.setattr(probes, "try_out", lambda *_: probes.Trial(64, 8.0, 1.0))
    some = probes_of(study_of(), Counts(9, 9))
    kinds = ("network", "heads", "network", "heads")
    found = [some._seconds(kind, lambda images: None, 64) for kind in kinds]
    assert found == [4.0, 2.0, 4.0, 2.0]


# --- how often -----------------------------------------------------------------------------


def test_images_that_are_not_measured_on_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "Probes", Even)
    found = estimate(study_of(), [("adam", 0)], CPU, ("validation",))
    assert found.features_seconds == 2500


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("every", [2, 3])
def test_what_is_scored_after_some_epochs_alone_is_counted_so(name: str, every: int) -> None:
    stage = stage_of(trainable="all", batchnorm="train", score_every_epochs=every)
    network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES))
    learner = CountingNetwork(network, some_splits(), *flatten(network), SGD(name="sgd"))
    order = DataOrder(TRAINING, BATCH, seed=0, stage=0)
    plans = run_plans({"0": METHODS[name]}, EPOCHS, order.steps_per_epoch)
    train(learner, plans, some_splits(), order, EPOCHS, score_every=every)
    found = (learner.steps, learner.predictions, learner.passes)
    assert counted(stage, (METHODS[name],)) == found
    assert found[1] < EPOCHS * SCORED * (4 if METHODS[name].averaging else 2)
    assert np.isfinite(found).all()
