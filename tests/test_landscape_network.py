"""The landscape of networks, against plain torch and by literal definitions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from swabench.landscape import survey
from swabench.landscape.geometry import Score, Slice, evaluate, largest_eigenvalue, sharpness
from swabench.landscape.network import filter_normalized, network_scores
from swabench.landscape.parts import unsurveyable
from swabench.landscape.survey import surveyed_images
from swabench.study.inputs import SplitName
from swabench.study.landscape import PARTS
from swabench.study.study import Study
from swabench.training import backbone
from swabench.training.flat import assign, flatten, parameter_views
from tests.networks import narrow_resnet50
from tests.test_network import carry_out, own_images, record_of, splits, study_of, tiny

__all__ = ["own_images"]  # a fixture

DATA = splits(images=40, dtype=torch.float32, held_out=(7, 23))


def weights_of(seed: int) -> Tensor:
    return flatten(tiny(seed).float())[0]


def scores() -> dict[SplitName, Score]:
    return network_scores(tiny().float(), None, DATA["train"], DATA["test"], evaluation_batch=6)


def network_at(weights: Tensor) -> nn.Module:
    network = tiny().float()
    assign(network, weights, flatten(network)[1])
    return network


def test_the_training_loss_is_that_of_one_batch_in_training_mode() -> None:
    train = DATA["train"]
    score = scores()["train"]
    weights = torch.stack([weights_of(1), weights_of(2)])
    accuracies, losses = score(weights)
    for k, one in enumerate(weights):
        logits = network_at(one).train()(train.inputs)
        torch.testing.assert_close(losses[k].item(), F.cross_entropy(logits, train.labels).item())
        right = (logits.argmax(1) == train.labels).double().mean()
        torch.testing.assert_close(accuracies[k], right)


def test_the_test_loss_is_by_statistics_of_the_training_images() -> None:
    train, test = DATA["train"], DATA["test"]
    score = scores()["test"]
    weights = torch.stack([weights_of(1), weights_of(2)])
    accuracies, losses = score(weights)
    for k, one in enumerate(weights):
        network = network_at(one)
        update_bn([train.inputs], network)
        with torch.no_grad():
            logits = network.eval()(test.inputs)
        expected = F.cross_entropy(logits, test.labels).item()
        assert losses[k].item() == pytest.approx(expected, rel=1e-5)
        assert accuracies[k].item() == (logits.argmax(1) == test.labels).double().mean().item()


def test_what_was_looked_at_before_plays_no_part() -> None:
    found = scores()
    one, other = weights_of(1).unsqueeze(0), weights_of(2).unsqueeze(0) * 50
    first = [found[split](one)[1].item() for split in ("train", "test")]
    for split in ("test", "train"):
        found[split](other)
    found["test"](torch.full_like(other, torch.nan))
    assert [found[split](one)[1].item() for split in ("train", "test")] == first


def test_frozen_layers_come_before_those_that_train() -> None:
    class Doubled(nn.Module):
        def forward(self, raw: Tensor) -> Tensor:
            return raw.float() / 2

    doubled = {name: type(s)(s.inputs * 2, s.labels) for name, s in DATA.items()}
    with_frozen = network_scores(
        tiny().float(), Doubled(), doubled["train"], doubled["test"], evaluation_batch=6
    )
    plain = scores()
    weights = weights_of(3).unsqueeze(0)
    for split in ("train", "test"):
        assert with_frozen[split](weights)[1].item() == plain[split](weights)[1].item()


def test_frozen_layers_neither_train_nor_lower_the_precision_of_those_above() -> None:
    class Rough(nn.Module):
        def forward(self, raw: Tensor) -> Tensor:
            assert not self.training
            return raw.bfloat16()

    rough = Rough().train()
    rounded = {name: type(s)(s.inputs.bfloat16().float(), s.labels) for name, s in DATA.items()}
    found, expected = (
        network_scores(tiny().float(), below, of["train"], of["test"], evaluation_batch=6)
        for below, of in ((rough, DATA), (None, rounded))
    )
    weights = weights_of(3).unsqueeze(0)
    for split in ("train", "test"):
        assert found[split](weights)[1].item() == expected[split](weights)[1].item()


def test_the_training_loss_has_the_gradient_of_its_values() -> None:
    score = scores()["train"]
    weights = weights_of(1).unsqueeze(0).requires_grad_()
    (gradient,) = torch.autograd.grad(score(weights)[1].sum(), weights)
    step = gradient / gradient.norm()
    around = [score((weights + h * step).detach())[1].item() for h in (1e-3, -1e-3)]
    assert (around[0] - around[1]) / 2e-3 == pytest.approx(gradient.norm().item(), rel=0.02)


def test_sharpness_and_curvature_are_of_a_network_too() -> None:
    loss = scores()
    weights = torch.stack([weights_of(1), weights_of(2)])

    def training_loss(flat: Tensor) -> Tensor:
        return loss["train"](flat)[1]

    found = sharpness(training_loss, weights, 1e-2, np.random.default_rng(0), steps=3)
    np.testing.assert_allclose(found.loss, training_loss(weights).numpy())
    assert (found.highest > found.loss).all()
    one = largest_eigenvalue(training_loss, weights[0], np.random.default_rng(0), tolerance=1e-4)
    hessian = torch.autograd.functional.hessian(
        lambda flat: training_loss(flat.unsqueeze(0)).sum(), weights[0]
    )
    assert one == pytest.approx(torch.linalg.eigvalsh(hessian.double()).max().item(), rel=1e-3)


def test_every_filter_of_a_direction_is_as_long_as_the_weights() -> None:
    network, weights = tiny().float(), weights_of(4)
    drawn = torch.from_numpy(np.random.default_rng(0).standard_normal(len(weights))).float()
    found = filter_normalized(drawn, weights, network)
    views = [dict(parameter_views(v, network)) for v in (found, weights, drawn)]
    for name, parameter in network.named_parameters():
        direction, own, start = (view[name] for view in views)
        if parameter.dim() == 1:  # biases, and BatchNorm's weights
            assert not direction.any()
            continue
        for channel in range(len(parameter)):
            size = own[channel].norm()
            torch.testing.assert_close(direction[channel].norm(), size)
            torch.testing.assert_close(
                direction[channel] / size, start[channel] / start[channel].norm()
            )


def test_scaling_a_filter_before_batchnorm_changes_no_ray() -> None:
    """What filter normalisation is for: two sets of weights that are one function."""
    found = scores()
    network, weights = tiny().float(), weights_of(5)
    scaled = weights.clone()
    dict(parameter_views(scaled, network))["0.weight"].mul_(10)
    drawn = torch.from_numpy(np.random.default_rng(1).standard_normal(len(weights))).float()
    distances = np.linspace(0, 1, 4)[:, None]

    def losses(origin: Tensor, *, normalized: bool) -> NDArray[np.float64]:
        direction = (
            filter_normalized(drawn, origin, network) if normalized else drawn / drawn.norm()
        )
        return evaluate(found["train"], Slice.ray(origin, direction), distances)[1]

    np.testing.assert_allclose(
        losses(scaled, normalized=True), losses(weights, normalized=True), rtol=1e-3
    )
    raw = [losses(origin, normalized=False)[-1] for origin in (scaled, weights)]
    assert abs(raw[0] / raw[1] - 1) > 0.01


# --- a study -------------------------------------------------------------------------------


@pytest.fixture
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested does not depend on the network's width, and its time does."""
    monkeypatch.setattr(backbone, "resnet50", narrow_resnet50)


@pytest.fixture(scope="module")
def study(own_images: Path) -> Study:
    few = {"points": 2, "seeds": None}
    small = study_of(own_images, "layer4", "layer4", standardize=False)
    landscape = {
        "training_images": 20,
        "test_images": 6,
        "lines": {**few, "low": -1, "high": 2},
        "segments": few,
        "plane": {"points": 2},
        "rays": {"points": 2, "directions": 2, "length": 0.5},
        "sharpness": {"steps": 1, "starts": 1},
        "hessian": {"probes": 2, "tolerance": 0.5},
    }
    return Study.model_validate({**small.model_dump(), "landscape": landscape})


@pytest.mark.slow
@pytest.mark.usefixtures("_narrow")
def test_a_networks_landscape_is_measured_and_written(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of fifteen million weights it takes minutes; a small network has shown it.
    monkeypatch.setattr(survey, "largest_eigenvalue", lambda *_, **__: 1.0)
    experiment = carry_out(study, tmp_path, ("swa", "sgd"))
    assert experiment.survey([0]) == len(PARTS)
    assert experiment.survey([0]) == 0
    store = experiment.store
    tables: dict[str, pd.DataFrame] = {}
    for part in PARTS:
        record = store.find_landscape(part, 0)
        assert record is not None
        tables |= record.tables
    rays = tables["rays"]
    assert set(rays["method"]) == {"adam", "swa", "sgd"}
    own = rays[rays["distance"] == 0].groupby(["method", "split"])["loss"]
    assert (own.min() == own.max()).all()
    assert tables["paths"].empty
    assert set(tables["lines"]["end"]) == {"sgd", "swa"}
    # At a method's own weights, its line and its rays say the same.
    lines = tables["lines"][tables["lines"]["alpha"] == 1].rename(columns={"end": "method"})
    both = lines.merge(rays[rays["distance"] == 0], on=["method", "split"])
    assert len(both) == 2 * 2 * 2  # two ends, two splits, two directions
    np.testing.assert_allclose(both["loss_x"], both["loss_y"], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("_narrow")
def test_a_line_from_a_head_starts_at_the_whole_backbone_with_that_head(
    study: Study, own_images: Path, tmp_path: Path
) -> None:
    """Adam trained the final layer; the line leads through the weights of `layer4`, too."""
    other = study_of(own_images, "head", "layer4")
    # Refused for random weights, as a study; weights that fit it would have to be trained first.
    finetune = other.finetune.model_copy(update={"batchnorm": "train"})
    other = other.model_copy(update={"landscape": study.landscape, "finetune": finetune})
    experiment = carry_out(other, tmp_path, ("swa", "sgd"))
    experiment.measure([("lines", 0)])
    found = experiment.store.find_landscape("lines", 0)
    assert found is not None
    lines = found.tables["lines"].query("split == 'train' and alpha == 0")
    materials = experiment._materials(0)
    training, _ = surveyed_images(other.landscape, materials.splits("layer4"))
    network = materials.trained_layers("layer4")
    head = record_of(experiment, "adam").arrays()["weights/iterate"]
    weight, bias = list(network.parameters())[-2:]
    weight.data = torch.tensor(head[: weight.numel()]).view(weight.shape)
    bias.data = torch.tensor(head[weight.numel() :])
    with torch.no_grad():
        expected = F.cross_entropy(network.train()(training.inputs), training.labels)
    np.testing.assert_allclose(lines["loss"], expected.item(), rtol=1e-4)
    assert len(lines) == 2


def test_without_all_its_images_a_landscape_has_a_draw_of_them(study: Study) -> None:
    images = splits(images=40)
    training, test = surveyed_images(study.landscape, images)
    assert (len(training), len(test)) == (20, 6)
    whole = study.landscape.model_copy(update={"test_images": None})
    assert surveyed_images(whole, images)[1] is images["test"]


@pytest.mark.parametrize("batchnorm", ["frozen", "first-epoch"])
def test_networks_whose_batchnorm_is_not_measured_anew_are_refused(
    own_images: Path, tmp_path: Path, batchnorm: str
) -> None:
    other = study_of(own_images, "layer4", "layer4", standardize=False, batchnorm=batchnorm)
    experiment = carry_out(other, tmp_path, ())
    reason = unsurveyable(other, experiment.store, [0])
    assert f"has finetune.batchnorm '{batchnorm}'" in reason


def test_only_named_methods_are_looked_at(study: Study) -> None:
    named = study.landscape.model_copy(update={"methods": ("sgd",)})
    few = study.model_copy(update={"landscape": named})
    assert few.landscape_rows("rays") == ("adam", "sgd")
    assert few.landscape_rows("segments") == ()
    assert study.landscape_rows("rays") == ("adam", "swa", "sgd")
    content = {**study.model_dump(), "landscape": {"methods": ["swaa"]}}
    with pytest.raises(ValueError, match=r"landscape\.methods: unknown method 'swaa'; choose from"):
        Study.model_validate(content)
