"""What runs share: who sees which image, whose label it has, and what is measured on whom.

The frozen layers are a stand-in here, so that every number can be followed back to its image.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights

from swabench.data.datasets import Dataset
from swabench.data.splits import choose_rows
from swabench.runs import materials as module
from swabench.runs.cache import Features
from swabench.runs.materials import Materials
from swabench.study.inputs import DataSettings, Precision, SplitName
from swabench.study.stages import Boundary
from swabench.study.study import Study
from swabench.system.errors import InputError
from swabench.system.progress import SilentProgress
from swabench.training.backbone import weights_digest
from tests.made_up import study_with

CPU = torch.device("cpu")
TRAIN, TEST, CLASSES = 60, 24, 3
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


def made_up_images(train: NDArray[np.int64], test: NDArray[np.int64]) -> Dataset:
    """Images with these labels; the first two pixels of each say which one it is.

    Test images are numbered from 1000 on.
    """

    def images(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        found = np.random.default_rng(len(numbers)).integers(0, 256, (len(numbers), 1, 4, 4))
        found[:, 0, 0, 0], found[:, 0, 0, 1] = numbers // 256, numbers % 256
        return found.astype(np.uint8)

    return Dataset(
        name="folder",
        train_images=images(np.arange(len(train))),
        train_labels=train,
        test_images=images(1000 + np.arange(len(test))),
        test_labels=test,
        classes=CLASSES,
        digests={"images": "ab", "labels": "cd"},
        source="made up",
    )


def numbers_of(images: Tensor) -> NDArray[np.int64]:
    """Which image each of (N, 1, 4, 4) is."""
    first, second = (images[:, 0, 0, k].numpy().astype(np.int64) for k in (0, 1))
    return np.asarray(256 * first + second)


def features_of(images: NDArray[np.uint8]) -> Tensor:
    """What the stand-in makes of images: their number, two that vary, and one that does not."""
    pixels = images.reshape(len(images), -1).astype(np.float64)
    number = 256 * pixels[:, 0] + pixels[:, 1]
    rows = [number, pixels[:, 2:].sum(1), pixels[:, 5] - 7, np.full(len(images), 3.0)]
    return torch.from_numpy(np.stack(rows, axis=1)).float()


@pytest.fixture
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    return made_up_images(rng.integers(CLASSES, size=TRAIN), rng.integers(CLASSES, size=TEST))


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch, dataset: Dataset) -> list[dict[str, Any]]:
    """Puts stand-ins for data, backbone and frozen layers; what the last were asked for."""
    calls: list[dict[str, Any]] = []

    def frozen_features(*arguments: Any, **options: Any) -> Features:
        names = ("images", "network", "boundary", "image_size", "normalization", "precision")
        calls.append({**dict(zip(names, arguments, strict=True)), **options})
        return Features(features_of(arguments[0]).to(getattr(torch, arguments[-1])), "none")

    monkeypatch.setattr(module, "load_dataset", lambda *_: dataset)
    monkeypatch.setattr(module, "load_backbone", lambda *_: nn.Linear(2, 2).eval())
    monkeypatch.setattr(module, "frozen_features", frozen_features)
    return calls


def materials(
    data: dict[str, Any] | None = None, cache: Path = Path("/nowhere"), **backbone: Any
) -> Materials:
    content = study_with(1).model_dump()
    content["data"] |= {"validation_images": 15, "selection_images": 0, **(data or {})}
    content["backbone"] |= {"standardize_features": False, **backbone}
    return Materials(Study.model_validate(content), CPU, cache, SilentProgress())


# --- which images --------------------------------------------------------------------------

FEWER: list[dict[str, Any]] = [
    {},
    {"training_images": 20},
    {"training_images": 45},  # all that validation leaves
    {"test_images": 10},
    {"training_images": 9, "test_images": 5, "split_seed": 3},
    {"selection_images": 6, "training_images": 20},
]


@pytest.mark.parametrize("fewer", FEWER)
def test_no_image_is_in_two_splits_and_none_is_lost(
    dataset: Dataset, fewer: dict[str, Any]
) -> None:
    settings = DataSettings(validation_images=15, **fewer)
    rows = {name: found.tolist() for name, found in choose_rows(settings, dataset).items()}
    train, validation, test = (rows[name] for name in ("train", "validation", "test"))
    assert len(train) == fewer.get("training_images", TRAIN - 15)
    selection = rows.get("selection", [])
    assert len(selection) == fewer.get("selection_images", 0)
    assert len(validation) + len(selection) == 15
    assert not set(selection) & {*train, *validation}
    assert len(set(selection)) == len(selection)
    assert len(test) == fewer.get("test_images", TEST)
    assert not set(train) & set(validation)
    assert len({*train, *validation}) == len(train) + len(validation)
    assert len(set(test)) == len(test)
    assert {*train, *validation} <= set(range(TRAIN))
    assert set(test) <= set(range(TEST))
    # Validation is the same whatever the study trains on.
    alone = DataSettings(validation_images=15, split_seed=settings.split_seed)
    held_out = choose_rows(alone, dataset)["validation"].tolist()
    assert sorted([*validation, *selection]) == held_out


def test_the_split_seed_draws_every_split(dataset: Dataset) -> None:
    drawn = [
        choose_rows(
            DataSettings(validation_images=15, training_images=20, test_images=10, split_seed=seed),
            dataset,
        )
        for seed in (0, 1, 2)
    ]
    for name in SPLITS:
        assert len({tuple(rows[name].tolist()) for rows in drawn}) == 3


@given(
    st.lists(st.integers(0, CLASSES - 1), min_size=8, max_size=40),
    st.integers(1, 4),
    st.none() | st.integers(1, 4),
    st.integers(0, 9),
)
def test_training_never_sees_validation(
    labels: list[int], held_out: int, training: int | None, seed: int
) -> None:
    every = np.array(labels)
    settings = DataSettings(
        validation_images=held_out, training_images=training, test_images=training, split_seed=seed
    )
    rows = choose_rows(settings, made_up_images(every, every))
    train, validation = set(rows["train"].tolist()), set(rows["validation"].tolist())
    assert not train & validation
    assert len(train) == (training or len(labels) - held_out)
    assert len(validation) == held_out


def test_each_class_keeps_its_share_in_every_split(dataset: Dataset) -> None:
    settings = DataSettings(validation_images=15, training_images=20, test_images=12)
    rows = choose_rows(settings, dataset)
    halves = DataSettings(validation_images=30, selection_images=15)
    selection = choose_rows(halves, dataset)["selection"]
    found = np.bincount(dataset.train_labels[selection], minlength=CLASSES)
    shares = np.bincount(dataset.train_labels, minlength=CLASSES) * 15 / len(dataset.train_labels)
    assert (np.abs(found - shares) < 1.5).all()  # a share of a share, rounded twice
    for name in SPLITS:
        whole = dataset.test_labels if name == "test" else dataset.train_labels
        found = np.bincount(whole[rows[name]], minlength=CLASSES)
        shares = np.bincount(whole, minlength=CLASSES) * len(rows[name]) / len(whole)
        assert (np.abs(found - shares) <= 1).all()


def test_more_images_than_there_are_is_refused(dataset: Dataset) -> None:
    for key, count in (("training_images", 46), ("test_images", TEST + 1)):
        with pytest.raises(InputError, match=f"data.{key}"):
            choose_rows(DataSettings(validation_images=15, **{key: count}), dataset)


# --- inputs and labels ---------------------------------------------------------------------


@pytest.mark.parametrize("fewer", FEWER)
@pytest.mark.parametrize(
    ("boundary", "cached"),
    [("head", True), ("layer4", True), ("all", True), ("head", False), ("layer4", False)],
)
def test_every_input_stands_beside_its_own_label(
    dataset: Dataset, fewer: dict[str, Any], boundary: Boundary, cached: bool
) -> None:
    found = materials(fewer, cache_features=cached).splits(boundary)
    rows = choose_rows(DataSettings(validation_images=15, **fewer), dataset)
    assert found.keys() == rows.keys()
    for name, split in found.items():
        images, labels = dataset.train_images, dataset.train_labels
        if name == "test":
            images, labels = dataset.test_images, dataset.test_labels
        if boundary == "all" or not cached:
            numbers, expected = numbers_of(split.inputs), torch.from_numpy(images[rows[name]])
        else:
            numbers = split.inputs[:, 0].numpy().astype(np.int64)
            expected = features_of(images[rows[name]])
        assert torch.equal(split.inputs, expected)
        own = numbers - (1000 if name == "test" else 0)
        assert sorted(own) == sorted(rows[name])
        assert split.labels.tolist() == labels[own].tolist()


def test_the_frozen_layers_are_asked_for_what_the_study_says(
    asked: list[dict[str, Any]], dataset: Dataset, tmp_path: Path
) -> None:
    data = {"image_size": 40, "test_images": 10}
    found = materials(data, cache=tmp_path, precision="bfloat16")
    found.splits("layer4")
    train, test = asked
    for call in (train, test):
        assert call["boundary"] == "layer4"
        assert call["image_size"] == 40
        assert call["normalization"] == dataset.normalization()
        assert call["precision"] == "bfloat16"
        assert call["cache"] == tmp_path
        assert call["device"] == CPU
    # Of the whole array, so that studies that split it differently share an entry.
    assert np.array_equal(train["images"], dataset.train_images)
    rows = choose_rows(DataSettings(validation_images=15, test_images=10), dataset)
    assert np.array_equal(test["images"], dataset.test_images[rows["test"]])


def test_a_study_on_a_few_images_computes_those_alone(
    asked: list[dict[str, Any]], dataset: Dataset
) -> None:
    materials({"training_images": 20}).splits("head")
    rows = choose_rows(DataSettings(validation_images=15, training_images=20), dataset)
    numbers = numbers_of(torch.from_numpy(asked[0]["images"]))
    assert sorted(numbers) == sorted([*rows["train"], *rows["validation"]])


# --- measured on the training images -------------------------------------------------------


@pytest.mark.parametrize("fewer", FEWER)
def test_features_are_standardised_by_the_training_images_alone(
    dataset: Dataset, fewer: dict[str, Any]
) -> None:
    rows = choose_rows(DataSettings(validation_images=15, **fewer), dataset)
    train = features_of(dataset.train_images[rows["train"]]).double().numpy()
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation[3] = 1  # what never varies keeps its scale
    found = materials(fewer, standardize_features=True)
    for name, split in found.splits("head").items():
        images = dataset.test_images if name == "test" else dataset.train_images
        raw = features_of(images[rows[name]]).double().numpy()
        np.testing.assert_allclose(split.inputs, (raw - mean) / deviation, rtol=1e-4, atol=1e-5)
    # The same map stands before the final layer where the layers below it train.
    for other in (found, materials(fewer, standardize_features=True)):
        np.testing.assert_allclose(other.standardization.mean, mean, rtol=1e-5)
        np.testing.assert_allclose(other.standardization.deviation, deviation, rtol=1e-5)
        before = other.trained_layers("head").get_submodule("standardize")
        given = torch.from_numpy(train).float()
        np.testing.assert_allclose(before(given), (train - mean) / deviation, rtol=1e-3, atol=1e-4)


def test_unstandardised_features_are_left_as_they_are() -> None:
    found = materials(standardize_features=False).standardization
    assert (found.mean == 0).all()
    assert (found.deviation == 1).all()


def test_images_are_normalised_by_this_data_set_or_by_imagenets_published_numbers(
    dataset: Dataset, asked: list[dict[str, Any]]
) -> None:
    pixels = dataset.train_images.astype(np.float64) / 255
    own = materials()
    np.testing.assert_allclose(own.normalization, [[pixels.mean()], [pixels.std()]])
    published = ResNet50_Weights.IMAGENET1K_V1.transforms()
    imagenet = materials({"normalization": "imagenet"})
    assert imagenet.normalization == (tuple(published.mean), tuple(published.std))
    imagenet.splits("head")
    assert asked[-1]["normalization"] == imagenet.normalization
    preprocess = imagenet.frozen_layers("all")
    assert preprocess is not None
    black = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (published.mean, published.std))
    torch.testing.assert_close(preprocess(black), (-mean / deviation).expand(1, 3, 28, 28))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_frozen_layers_without_a_cache_see_the_studys_size_and_precision(
    monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    def frozen_part(_: nn.Module, boundary: Boundary) -> nn.Sequential:
        assert boundary == "layer4"
        return nn.Sequential(nn.Conv2d(3, 2, 3, stride=2))

    monkeypatch.setattr(module, "frozen_part", frozen_part)
    found = materials({"image_size": 11}, precision=precision, cache_features=False)
    images = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    whole, below = found.frozen_layers("all"), found.frozen_layers("layer4")
    assert whole is not None
    assert below is not None
    assert whole(images).shape == (1, 3, 11, 11)
    assert below(images).shape == (1, 2, 5, 5)
    assert below(images).dtype == getattr(torch, precision)


def test_cached_layers_are_not_run_again() -> None:
    assert materials().frozen_layers("head") is None
    assert materials().frozen_layers("layer4") is None


def test_records_are_told_what_went_in(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = nn.Linear(2, 2)
    monkeypatch.setattr(module, "load_backbone", lambda *_: backbone)
    found = materials().provenance("all")
    assert found["data"] == dataset.digests
    assert found["backbone"] == weights_digest(backbone)


def test_statistics_are_measured_anew_on_the_training_images_as_the_study_sees_them(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And the digest is of the weights as they came, whatever rounds the statistics."""
    came = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).eval()
    digest, calls = weights_digest(came), list[tuple[Any, ...]]()
    measured = torch.arange(6, dtype=torch.float32) + 5

    def statistics(images: NDArray[np.uint8], network: nn.Module, *rest: Any, **o: Any) -> Tensor:
        calls.append((images, network, rest, o["cache"], o["device"]))
        return measured

    monkeypatch.setattr(module, "load_backbone", lambda *_: came)
    monkeypatch.setattr(module, "batchnorm_statistics", statistics)
    data = {"image_size": 40, "training_images": 20}
    found = materials(data, cache=tmp_path, reestimate_batchnorm=True)
    ((images, network, rest, cache, device),) = calls
    rows = choose_rows(DataSettings(validation_images=15, **data), dataset)
    assert np.array_equal(images, dataset.train_images[rows["train"]])
    assert rest == (40, dataset.normalization())
    assert (cache, device) == (tmp_path, CPU)
    assert network is not came  # a copy's statistics are lost on the way
    state = found.backbone().state_dict()
    assert [
        *state["1.running_mean"].tolist(),
        *state["1.running_var"].tolist(),
    ] == measured.tolist()
    assert found.provenance("all")["backbone"] == digest
    assert weights_digest(found.backbone()) != digest
    calls.clear()
    materials(data, reestimate_batchnorm=False)
    assert calls == []


def test_features_are_kept_where_they_are_to_be(asked: list[dict[str, Any]]) -> None:
    whole = study_with(1).model_dump()
    data = {**whole["data"], "validation_images": 15, "selection_images": 0}
    study = Study.model_validate({**whole, "data": data, "controls": None})
    for keep in (True, False):
        asked.clear()
        found = Materials(study, CPU, Path("/nowhere"), SilentProgress(), keep_features=keep)
        found.splits("layer4")
        assert [call["keep"] for call in asked] == [keep, keep]
        assert [call["name"] for call in asked] == ["training", "test"]


def test_every_copy_of_the_backbone_is_as_before_any_training() -> None:
    found = materials()
    one: Any = found.backbone()
    before = one.weight.detach().clone()
    with torch.no_grad():
        one.weight.add_(1)
    other: Any = found.backbone()
    assert torch.equal(other.weight, before)


def test_splits_are_made_once() -> None:
    found = materials(standardize_features=True)
    first = found.splits("head")
    again = found.splits("head")
    assert all(first[name].inputs is again[name].inputs for name in SPLITS)


@pytest.mark.parametrize("trainable", ["head", "layer4"])
@pytest.mark.parametrize("cached", [True, False])
def test_what_a_run_is_made_from_does_not_depend_on_what_is_trained_first(
    trainable: Boundary, cached: bool
) -> None:
    """A state that one process kept is taken up by another, which may have trained nothing yet."""
    found = materials(standardize_features=True, cache_features=cached)
    found.prepare(trainable)
    before = found.provenance(trainable)
    assert before["features"]
    _ = found.standardization  # what training asks for
    assert found.provenance(trainable) == before
