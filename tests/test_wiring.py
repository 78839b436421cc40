"""How runs are wired together: which start, which images, in which order, into which record.

A cheap stand-in makes the features, so that several seeds of every method train in moments.
Everything else is the product's own, from IDX files to records.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from swabench.analysis.publish import Publication
from swabench.data.datasets import load_dataset
from swabench.data.idx import encode_idx
from swabench.data.splits import choose_rows
from swabench.records import Provenance
from swabench.runs import execution, learners
from swabench.runs import experiment as experiments
from swabench.runs import materials as material
from swabench.runs.cache import Features
from swabench.runs.experiment import Experiment
from swabench.runs.learners import Start, make_learner
from swabench.runs.materials import Materials
from swabench.study.inputs import SplitName
from swabench.study.loading import load_study
from swabench.study.optimizers import SGD
from swabench.study.stages import Boundary
from swabench.study.study import Study
from swabench.system.errors import DivergedError, InputError
from swabench.system.progress import Advance, SilentProgress
from swabench.training.learner import Split
from swabench.training.loop import DataOrder, training
from tests.made_up import last_of, record_of
from tests.reference import flat, linear, one_at_a_time

CPU = torch.device("cpu")
CLASSES, FEATURES = 4, 2048
SEEDS = [0, 3]


def features_of(images: NDArray[np.uint8]) -> Tensor:
    """The stand-in for ResNet-50: fixed random features of the pixels, (N, 2048)."""
    mixed = np.random.default_rng(5).standard_normal((images[0].size, FEATURES)) / 10
    return torch.from_numpy(np.tanh(images.reshape(len(images), -1) / 255 @ mixed)).float()


def put_stand_in(patch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    backbone = nn.Linear(2, 2).eval()
    patch.setattr(material, "load_backbone", lambda *_: backbone)
    patch.setattr(
        material, "frozen_features", lambda images, *_, **__: Features(features_of(images), "none")
    )


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    put_stand_in(monkeypatch)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Heads this small only lose by threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_images(folder: Path, seed: int = 0) -> Path:
    """60 training and 36 test images of 6 × 6 pixels that can be told apart, with errors."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for part, count in (("train", 60), ("t10k", 36)):
        labels = rng.integers(CLASSES, size=count)
        pixels = rng.integers(0, 200, (count, 6, 6))
        pixels[np.arange(count), labels] += 55
        files = {"images-idx3-ubyte": pixels, "labels-idx1-ubyte": labels}
        for name, values in files.items():
            (folder / f"{part}-{name}").write_bytes(encode_idx(values.astype(np.uint8)))
    return folder


def study_on(images: Path, **changes: Any) -> Study:
    """All methods of the smoke study on these images, the rate sweep's too."""
    content = load_study("smoke").model_dump()
    content["data"] |= {
        "dataset": "folder", "folder": images, "validation_images": 16,
        "training_images": None, "test_images": None, "selection_images": 0,
    }  # fmt: skip
    content["pretrain"] |= {"epochs": 2, "batch_size": 16}
    content["finetune"] |= {"epochs": 3, "batch_size": 10}  # the last of an epoch is of 4
    quick: dict[str, dict[str, Any]] = {
        "lines": {"points": 5},
        "segments": {"points": 2},
        "plane": {"points": 2},
        "rays": {"directions": 1, "points": 2},
        "sharpness": {"epsilons": [1e-3], "starts": 1, "steps": 1},
        "hessian": {"probes": 2, "tolerance": 0.5},
    }
    for part, settings in quick.items():
        content["landscape"][part] |= {"seeds": None if part == "lines" else 1, **settings}
    content["landscape"]["training_images"] = 30
    return Study.model_validate({**content, "controls": None, "seeds": SEEDS, **changes})


def experiment_of(study: Study, folder: Path) -> Experiment:
    return Experiment(study, folder / "results", CPU, folder / "cache", SilentProgress())


@dataclass(frozen=True)
class Finished:
    """A study that was carried out, and what it should have seen."""

    study: Study
    experiment: Experiment
    inputs: dict[SplitName, Split]

    def weights(self, name: str, seed: int, predictor: str = "") -> Tensor:
        record = record_of(self.experiment.store, name, seed)
        return torch.tensor(record.arrays()[f"weights/{predictor or record.result}"])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    study = study_on(images)
    with pytest.MonkeyPatch.context() as patch:
        put_stand_in(patch)
        experiment = experiment_of(study, tmp_path_factory.mktemp("finished"))
        experiment.finetune(list(study.all_methods), SEEDS)
        yield Finished(study, experiment, inputs_by_hand(study, images))


def inputs_by_hand(study: Study, folder: Path) -> dict[SplitName, Split]:
    """What heads train on and are scored on: features, standardised by the training images'."""

    def read(part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        pixels = np.frombuffer((folder / f"{part}-images-idx3-ubyte").read_bytes()[16:], np.uint8)
        labels = np.frombuffer((folder / f"{part}-labels-idx1-ubyte").read_bytes()[8:], np.uint8)
        return pixels.reshape(-1, 6, 6), labels.astype(np.int64)

    rows = choose_rows(study.data, load_dataset("folder", folder, folder, SilentProgress().say))
    (train_images, train_labels), (test_images, test_labels) = read("train"), read("t10k")
    parts: dict[SplitName, tuple[NDArray[np.uint8], NDArray[np.int64]]] = {
        "train": (train_images[rows["train"]], train_labels[rows["train"]]),
        "validation": (train_images[rows["validation"]], train_labels[rows["validation"]]),
        "test": (test_images, test_labels),
    }
    raw = features_of(parts["train"][0]).double()
    mean, deviation = raw.mean(0), raw.std(0, correction=0)
    return {
        name: Split((features_of(pixels).double() - mean) / deviation, torch.from_numpy(labels))
        for name, (pixels, labels) in parts.items()
    }


def torchs_head(seed: int) -> Tensor:
    torch.manual_seed(seed)
    return flat(nn.Linear(FEATURES, CLASSES)).double()


def order_of(study: Study, train: Split, seed: int, stage: int) -> list[tuple[Tensor, ...]]:
    settings = (study.pretrain, study.finetune)[stage]
    order = DataOrder(len(train), settings.batch_size, seed, stage)
    return [order.epoch(epoch) for epoch in range(settings.epochs)]


def pretrained_by_torch(study: Study, train: Split, seed: int) -> Tensor:
    """The seed's own head, trained by torch.optim.Adam on the seed's own order of images."""
    model = linear(torchs_head(seed), CLASSES)
    optimizer = torch.optim.Adam(model.parameters(), lr=study.pretrain.rate.learning_rate)  # type: ignore[union-attr]
    for rows in [rows for epoch in order_of(study, train, seed, 0) for rows in epoch]:
        optimizer.zero_grad()
        F.cross_entropy(model(train.inputs[rows]), train.labels[rows]).backward()
        optimizer.step()
    return flat(model)


# --- starts and orders ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_every_run_is_what_torch_makes_of_its_own_seed(finished: Finished, seed: int) -> None:
    """One at a time, by torch.optim and swa_utils, in float64."""
    study, train = finished.study, finished.inputs["train"]
    start = pretrained_by_torch(study, train, seed)
    close = {"rtol": 1e-3, "atol": 2e-4}
    torch.testing.assert_close(finished.weights("adam", seed).double(), start, **close)  # type: ignore[arg-type]
    order = order_of(study, train, seed, 1)
    assert isinstance(study.finetune.optimizer, SGD)
    for name, method in study.all_methods.items():
        iterate, average = one_at_a_time(
            method, start, train.inputs, train.labels, order, study.finetune.optimizer, CLASSES
        )
        expected = {"iterate": iterate} | ({"average": average} if method.averaging else {})
        for predictor, weights in expected.items():
            found = finished.weights(name, seed, predictor).double()
            torch.testing.assert_close(found, weights, **close)  # type: ignore[arg-type]
        trajectory = record_of(finished.experiment.store, name, seed).arrays()["trajectory"]
        np.testing.assert_array_equal(trajectory[0], finished.weights("adam", seed))


def test_no_two_seeds_and_no_two_stages_share_anything_random(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, list[int]]] = []

    def watched(
        learner: Any, plans: Any, splits: Any, order: DataOrder, *rest: Any, **o: Any
    ) -> Any:
        seen.append((learner.weights(), torch.cat(order.epoch(0)).tolist()))
        return training(learner, plans, splits, order, *rest, **o)

    monkeypatch.setattr(execution, "training", watched)
    study = study_on(images)
    experiment_of(study, tmp_path).finetune(["sgd", "swa"], [0, 1, 2])
    starts, orders = zip(*seen, strict=True)
    assert len(seen) == 6  # three heads pretrain, then two methods of each seed fine-tune together
    assert len({tuple(order) for order in orders}) == 6
    assert all(sorted(order) == list(range(44)) for order in orders)
    assert len({start[0].numpy().tobytes() for start in starts}) == 6
    for together in starts[3:]:
        assert torch.equal(together[0], together[1])


@pytest.mark.parametrize("name", ["sgd", "pswa", "swa-rate-0.05"])
def test_a_run_does_not_depend_on_those_beside_it(
    finished: Finished, images: Path, tmp_path: Path, name: str
) -> None:
    """Alone, without pretraining of its own, and at another place in the list of seeds."""
    alone = experiment_of(study_on(images), tmp_path)
    alone.finetune([name], SEEDS[1:])
    for seed in SEEDS[1:]:
        found, whole = (
            record_of(alone.store, name, seed),
            record_of(finished.experiment.store, name, seed),
        )
        assert found.identity == whole.identity
        arrays, expected = found.arrays(), whole.arrays()
        assert arrays.keys() == expected.keys()
        for key, values in expected.items():
            np.testing.assert_allclose(arrays[key], values, rtol=1e-3, atol=1e-4, err_msg=key)
    assert alone.store.missing([name], SEEDS) == [(name, SEEDS[0])]


def test_what_was_interrupted_goes_on_to_the_same_end(
    finished: Finished, images: Path, tmp_path: Path
) -> None:
    study = study_on(images)
    experiment_of(study, tmp_path).pretrain(SEEDS)
    experiment_of(study, tmp_path).finetune(["swa"], SEEDS[:1])
    store = experiment_of(study, tmp_path).store
    for name in set(study.all_methods) - {"swa"}:
        shutil.rmtree(store.folder / "runs" / name)
    kept = record_of(store, "swa", 0).folder.stat().st_mtime_ns
    done = experiment_of(study, tmp_path).finetune(list(study.all_methods), SEEDS)
    assert done == len(study.all_methods) * len(SEEDS) - 1
    assert record_of(store, "swa", 0).folder.stat().st_mtime_ns == kept
    for name in study.run_names:
        for seed in SEEDS:
            record = record_of(store, name, seed)
            found = torch.tensor(record.arrays()[f"weights/{record.result}"])
            torch.testing.assert_close(found, finished.weights(name, seed), rtol=1e-3, atol=1e-4)
    assert experiment_of(study, tmp_path).finetune(list(study.all_methods), SEEDS) == 0


def study_with_a_wild_row(images: Path, **changes: Any) -> Study:
    methods = study_on(images).model_dump()["methods"]
    wild = {"title": "Wild", "rate": {"schedule": "constant", "learning_rate": 1e38}}
    return study_on(images, methods={**methods, "wild": wild}, **changes)


def test_a_run_that_diverges_is_recorded_and_named_each_time_and_not_trained_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = experiment_of(study_with_a_wild_row(images), tmp_path)
    names = ["adam", "sgd", "wild", "swa"]
    for again in (False, True):
        with pytest.raises(DivergedError) as caught:
            experiment.finetune(names[1:], SEEDS)
        assert "wild at seeds 0, 3 (loss not finite after epoch 1)" in str(caught.value)
        for other in ("adam", "sgd", "swa"):
            assert other not in str(caught.value)
        assert not experiment.store.missing(names, SEEDS)
        if not again:
            monkeypatch.setattr(execution, "training", None)  # nothing is left to train
    record = record_of(experiment.store, "wild", 0)
    assert record.diverged
    assert (record.diverged.epoch, record.diverged.predictor) == (1, "iterate")
    assert (record.history, record.holds, record.arrays()) == ((), [], {})


def test_a_study_that_allows_divergence_records_it_without_an_error(
    images: Path, tmp_path: Path
) -> None:
    experiment = experiment_of(study_with_a_wild_row(images, diverged="record"), tmp_path)
    assert experiment.finetune(["wild"], [0]) == len(experiment.study.all_methods)
    (found,) = experiment.store.diverged(["adam", "sgd", "wild"], SEEDS)
    assert (found.method, found.seed) == ("wild", 0)


def test_what_needs_the_weights_of_a_run_that_diverged_says_so(
    images: Path, tmp_path: Path
) -> None:
    experiment = experiment_of(study_with_a_wild_row(images, diverged="record"), tmp_path)
    experiment.finetune(["wild"], [0])
    with pytest.raises(InputError, match=r"wild diverged at seed 0 \(loss not .* no weights"):
        experiment.export("wild", 0)
    with pytest.raises(InputError, match=r"diverged and have no weights \(wild at seed 0 \(loss"):
        experiment.survey([0])


def test_an_average_made_afterwards_of_a_path_that_diverged_is_recorded_so(
    images: Path, tmp_path: Path
) -> None:
    """There are no epochs of it to be averaged, so the path is gone once more."""
    study = study_with_a_wild_row(images, diverged="record")
    experiment_of(study, tmp_path).finetune(["wild"], [0])
    content = study.model_dump()
    average = {**content["methods"]["wild"], "averaging": content["methods"]["swa"]["averaging"]}
    methods = {**content["methods"], "wild-average": average}
    later = experiment_of(Study.model_validate({**content, "methods": methods}), tmp_path)
    assert later.finetune(["wild-average"], [0]) == 1
    assert record_of(later.store, "wild-average", 0).diverged
    assert record_of(later.store, "wild-average", 0).averages


def test_progress_ends_where_it_said(images: Path, tmp_path: Path) -> None:
    told: dict[str, list[int]] = {}

    class Told(SilentProgress):
        @contextmanager
        def task(self, name: str, total: int, unit: str) -> Iterator[Advance]:
            done: list[int] = []
            yield lambda units, before=False: done.append(units)
            told[name] = [total, sum(done)]

    study = study_on(images)
    experiment = Experiment(study, tmp_path / "results", CPU, tmp_path / "cache", Told())
    experiment.finetune(["sgd", "swa"], SEEDS)
    experiment.finetune(list(study.all_methods), SEEDS)
    experiment.survey(SEEDS)
    assert told["pretraining"] == [2 * len(SEEDS)] * 2
    for name in ("fine-tuning", "landscape"):
        total, done = told[name]
        assert total == done > 0, name


# --- records -------------------------------------------------------------------------------


def test_recorded_numbers_are_those_of_the_recorded_weights_on_their_own_images(
    finished: Finished,
) -> None:
    distinct: set[float] = set()
    for name in finished.study.run_names:
        for seed in SEEDS:
            record = record_of(finished.experiment.store, name, seed)
            arrays = record.arrays()
            for split in ("validation", "test"):
                inputs, labels = finished.inputs[split].inputs, finished.inputs[split].labels
                assert arrays[f"labels/{split}"].tolist() == labels.tolist()
                for predictor in ("iterate", "average"):
                    if f"weights/{predictor}" not in arrays:
                        continue
                    weights = torch.tensor(arrays[f"weights/{predictor}"]).double()
                    scores = linear(weights, CLASSES)(inputs).detach()
                    found = last_of(record, predictor, split)
                    right = (scores.argmax(1) == labels).double().mean().item()
                    assert found.accuracy == pytest.approx(100 * right, abs=1e-6)
                    loss = F.cross_entropy(scores, labels).item()
                    assert found.loss == pytest.approx(loss, rel=1e-4)
                    distinct.add(round(found.loss, 7))
                    np.testing.assert_allclose(
                        arrays[f"log_probabilities/{predictor}/{split}"],
                        scores.log_softmax(1), rtol=1e-3, atol=1e-4,
                    )  # fmt: skip
    assert len(distinct) > 40  # so that a mix-up would have shown


def test_the_table_holds_what_the_recorded_predictions_give(finished: Finished) -> None:
    study, store = finished.study, finished.experiment.store
    Publication(study, store, SEEDS).table()
    table = pd.read_csv(store.folder / "table.csv").set_index("method")
    assert list(table.index) == list(study.row_names)
    labels = finished.inputs["test"].labels.numpy()
    for name in study.row_names:
        accuracies = []
        for seed in SEEDS:
            record = record_of(store, name, seed)
            predicted = record.arrays()[f"log_probabilities/{record.result}/test"].argmax(1)
            accuracies.append(100 * (predicted == labels).mean())
        assert table.loc[name, "accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-5)
    assert table["accuracy"].between(40, 95).all()  # learned, and not without errors
    assert len(set(table["accuracy"])) > 1


def test_records_say_what_they_were_made_of(finished: Finished, images: Path) -> None:
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in images.iterdir()
    }
    for name in finished.study.run_names:
        record = record_of(finished.experiment.store, name, SEEDS[1])
        assert record.provenance["data"] == digests
        assert record.environment["device"] == "cpu"
        assert torch.__version__.startswith(record.environment["torch"])
        assert record.seconds >= 0


def test_the_landscape_is_that_of_the_runs_and_the_splits(finished: Finished) -> None:
    """At a line's ends stand the recorded losses of its two runs."""
    experiment, store = finished.experiment, finished.experiment.store
    assert experiment.survey(SEEDS) > 0
    for seed in SEEDS:
        found = store.find_landscape("lines", seed)
        assert found is not None
        lines = found.tables["lines"]
        test = lines[lines["split"] == "test"]
        for name, line in test.groupby("end"):
            ends = line.set_index("alpha")["loss"]
            for alpha, run in ((0, "adam"), (1, str(name))):
                record = record_of(store, run, seed)
                recorded = last_of(record, record.result, "test").loss
                assert ends[alpha] == pytest.approx(recorded, rel=1e-3)
        train = lines[lines["split"] == "train"]
        assert not np.isclose(train["loss"].to_numpy(), test["loss"].to_numpy(), rtol=1e-3).all()
    assert experiment.survey(SEEDS) == 0


# --- other data ----------------------------------------------------------------------------


@pytest.mark.parametrize("changed", ["data", "backbone"])
def test_nothing_goes_on_from_records_of_other_data(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """However it comes that a record is found whose data or weights are not those at hand."""
    study = study_on(images)
    begun = experiment_of(study, tmp_path)
    begun.finetune(list(study.all_methods), [0])
    for name in set(study.all_methods) - {"sgd", "swa"}:
        shutil.rmtree(begun.store.folder / "runs" / name)
    records = sorted(begun.store.folder.rglob("record.json"))

    class Other(Materials):
        def provenance(self, boundary: Boundary) -> Provenance:
            return {**super().provenance(boundary), changed: "other"}

    monkeypatch.setattr(experiments, "Materials", Other)
    ways: list[Callable[[Experiment], object]] = [
        lambda e: e.finetune(["pswa"], [0]),
        lambda e: e.finetune(list(study.all_methods), [0]),
        lambda e: e.export("swa", 0),
    ]
    for go_on in ways:
        with pytest.raises(InputError, match="other data, backbone weights or features"):
            go_on(experiment_of(study, tmp_path))
    assert sorted(begun.store.folder.rglob("record.json")) == records

    monkeypatch.setattr(experiments, "Materials", Materials)
    experiment_of(study, tmp_path).finetune(list(study.all_methods), [0])
    monkeypatch.setattr(experiments, "Materials", Other)
    with pytest.raises(InputError, match="other data, backbone weights or features"):
        experiment_of(study, tmp_path).survey([0])
    assert not list(begun.store.folder.glob("landscape/**/*.json"))


# --- settings ------------------------------------------------------------------------------


def stage_with(study: Study, **changes: Any) -> Study:
    return Study.model_validate(
        {**study.model_dump(), "finetune": {**study.finetune.model_dump(), **changes}}
    )


class Noted:
    """A learner that notes how it was made."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments, self.options = arguments, options


@pytest.fixture
def _noted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NetworkLearner", "StackedHeads"):
        monkeypatch.setattr(learners, name, Noted)
    monkeypatch.setattr(Materials, "trained_layers", lambda *_: "the layers")
    monkeypatch.setattr(Materials, "frozen_layers", lambda _, boundary: f"below {boundary}")


def made(study: Study, runs: int = 1, start: Sequence[float] = (1.0, 2.0)) -> Any:
    materials = Materials(study, CPU, Path("/nowhere"), SilentProgress())
    begin = Start(torch.tensor(start), torch.tensor([3.0]))
    return make_learner(study, study.finetune, materials, begin, runs, say)


def say(line: str) -> None:
    """Takes lines for the user."""


@pytest.mark.usefixtures("_noted")
def test_a_networks_learner_gets_every_setting_of_its_stage(images: Path) -> None:
    base = study_on(images, backbone={"cache_features": False})
    settings: dict[str, Any] = {
        "precision": "bfloat16",
        "evaluation_batch_size": 17,
        "batchnorm": "frozen",
        "optimizer": {"name": "sgd", "momentum": 0.5, "weight_decay": 0.1},
        "batch_size": 11,
    }
    study = stage_with(base, trainable="layer4", **settings)
    noted = made(study)
    layers, splits, weights, statistics, optimizer = noted.arguments
    assert layers == "the layers"
    assert set(splits) == {"train", "validation", "test"}
    assert weights.tolist() == [1, 2]
    assert statistics.tolist() == [3]
    assert optimizer == study.finetune.optimizer
    assert optimizer.momentum == 0.5
    assert noted.options == {
        "frozen": "below layer4",
        "batchnorm_steps": 0,
        "precision": "bfloat16",
        "evaluation_batch": 17,
        "minibatch": 11,
        "say": say,
    }
    # Of 44 training images in minibatches of 11 an epoch has four.
    first = made(stage_with(base, trainable="head", batchnorm="first-epoch", batch_size=11))
    assert first.options["batchnorm_steps"] == 4
    assert first.options["precision"] == "float32"


@pytest.mark.usefixtures("_noted")
def test_a_last_minibatch_of_one_image_is_refused_where_batchnorm_normalises_it(
    images: Path,
) -> None:
    """Of 44 training images in minibatches of 43; 22 leave none."""
    heads, layers = study_on(images).model_dump(), {"trainable": "layer4"}
    backbone = {"cache_features": False, "standardize_features": False}
    stages = {stage: {**heads[stage], **layers} for stage in ("pretrain", "finetune")}
    base = study_on(images, backbone=backbone, **stages)
    for batchnorm in ("train", "first-epoch"):
        refused = stage_with(base, trainable="layer4", batchnorm=batchnorm, batch_size=43)
        with pytest.raises(InputError, match="44 training images in minibatches of 43 leave"):
            made(refused)
        assert made(stage_with(base, trainable="layer4", batchnorm=batchnorm, batch_size=22))
    assert made(stage_with(base, trainable="layer4", batchnorm="frozen", batch_size=43))
    assert made(stage_with(study_on(images, backbone=backbone), trainable="head", batch_size=43))


@pytest.mark.usefixtures("_noted")
def test_heads_start_alike_and_get_the_stages_optimizer(images: Path) -> None:
    study = stage_with(study_on(images), optimizer={"name": "sgd", "nesterov": True})
    splits, start, optimizer, classes = made(study, runs=3).arguments
    assert start.tolist() == 3 * [[1, 2]]
    assert optimizer.nesterov
    assert classes == CLASSES
    assert splits["train"].inputs.shape == (44, FEATURES)
