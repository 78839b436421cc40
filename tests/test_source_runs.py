"""Runs whose seeds draw other things than usual: what differs, what is shared, what is kept.

The frozen layers are a stand-in that turns images by the backbone's weights, so that another
backbone gives other features.
"""

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typer.testing import CliRunner

from swabench.analysis.frame import collect
from swabench.cli import app, plan
from swabench.records import Record, RecordStore
from swabench.runs import experiment as experiments
from swabench.runs import materials as module
from swabench.runs.cache import Features
from swabench.runs.estimate import Estimate
from swabench.runs.execution import Execution
from swabench.runs.experiment import Experiment
from swabench.runs.lanes import Turns
from swabench.runs.materials import Materials
from swabench.study.seeds import SOURCES
from swabench.study.stages import Stage
from swabench.system.errors import InputError
from swabench.system.files import sha256
from swabench.system.progress import SilentProgress
from tests.made_up import record_of
from tests.test_wiring import CPU, features_of, study_on, write_images

# By turns: heads 1 and 2, orders 1 and 2, splits 1 and 2, backbones 1 and 2.
HEADS, ORDERS, SPLITS, BACKBONES = (0, 4), (1, 5), (2, 6), (3, 7)
EVERY = list(range(8))
TURNS: dict[str, Any] = {
    "name": "turns",
    "seeds": 8,
    "seed_draws": SOURCES,
    "one_source_at_a_time": True,
    "controls": None,
    "rate_sweep": None,
}


asked: list[dict[str, Any]] = []  # what the frozen layers were asked for


def backbone_of(settings: Any, _: Any = None) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return nn.Linear(2, 2).eval()


def frozen_features(images: NDArray[np.uint8], network: Any, *_: Any, **given: Any) -> Features:
    asked.append(given)
    values: Tensor = features_of(images) * (1 + network.weight[0, 0].detach().abs())
    return Features(values.sin(), sha256(values.numpy().tobytes()))


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    put_stand_in(monkeypatch)


def put_stand_in(patch: pytest.MonkeyPatch) -> None:
    asked.clear()
    patch.setattr(module, "load_backbone", backbone_of)
    patch.setattr(module, "frozen_features", frozen_features)


def experiment_in(folder: Path, results: str = "results", **changes: Any) -> Experiment:
    study = study_on(folder / "images", **{**TURNS, **changes})
    return Experiment(study, folder / results, CPU, folder / "cache", SilentProgress())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("turns")
    write_images(folder / "images")
    with pytest.MonkeyPatch.context() as patch:
        put_stand_in(patch)
        made = experiment_in(folder)
        made.finetune(list(made.study.all_methods), EVERY)
    return made


def start(made: Experiment, seed: int) -> NDArray[Any]:
    """The final layer before pretraining."""
    return np.asarray(record_of(made.store, "adam", seed).arrays()["trajectory"][0])


def orders(made: Experiment, seed: int) -> list[list[int]]:
    """The first epoch's rows in both stages."""
    stages = (made.study.pretrain, made.study.finetune)
    materials = made._materials(seed)
    epochs = (made._execution.order(stage, seed, materials).epoch(0) for stage in stages)
    return [torch.cat(epoch).tolist() for epoch in epochs]


def rows(made: Experiment, seed: int) -> dict[str, list[int]]:
    return {name: found.tolist() for name, found in made._materials(seed)._rows.items()}


def backbone(made: Experiment, seed: int) -> object:
    return record_of(made.store, "swa", seed).provenance["backbone"]


def features(made: Experiment, seed: int) -> object:
    return record_of(made.store, "swa", seed).provenance["features"]


@pytest.mark.parametrize("seeds", [HEADS, ORDERS, SPLITS, BACKBONES])
def test_one_source_differs_and_the_others_are_held(
    finished: Experiment, seeds: tuple[int, int]
) -> None:
    one, other = seeds
    same_start = np.array_equal(start(finished, one), start(finished, other))
    assert same_start == (seeds != HEADS)
    assert (orders(finished, one) == orders(finished, other)) == (seeds != ORDERS)
    assert (rows(finished, one) == rows(finished, other)) == (seeds != SPLITS)
    assert (backbone(finished, one) == backbone(finished, other)) == (seeds != BACKBONES)
    assert (features(finished, one) == features(finished, other)) == (seeds != BACKBONES)
    # Whatever is drawn, results differ, and test images do not.
    first, second = (record_of(finished.store, "swa", s).arrays() for s in seeds)
    assert not np.array_equal(first["weights/average"], second["weights/average"])
    assert np.array_equal(first["labels/test"], second["labels/test"])
    assert rows(finished, one)["test"] == rows(finished, other)["test"] == list(range(36))


def test_both_stages_have_an_order_of_their_own(finished: Experiment) -> None:
    before, after = orders(finished, 1)
    assert sorted(before) == sorted(after)
    assert before != after


def test_what_is_held_is_as_at_seed_0_of_an_ordinary_study(finished: Experiment) -> None:
    images = finished.study.data.folder
    assert images is not None
    ordinary = experiment_in(images.parent, "ordinary", seed_draws=["head", "order"],
                             one_source_at_a_time=False)  # fmt: skip
    ordinary.finetune(["swa"], [0])
    for seeds in (ORDERS, SPLITS, BACKBONES):
        np.testing.assert_array_equal(start(finished, seeds[0]), start(ordinary, 0))
    for seeds in (HEADS, SPLITS, BACKBONES):
        assert orders(finished, seeds[0]) == orders(ordinary, 0)


@pytest.mark.parametrize(
    ("seed", "changes"),
    [(6, {"data": {"split_seed": 2}}), (7, {"backbone": {"seed": 2}})],
    ids=["split", "backbone"],
)
def test_the_same_draws_by_another_studys_settings_are_the_same_run(
    finished: Experiment, tmp_path: Path, seed: int, changes: dict[str, Any]
) -> None:
    """Same identity, and the same bytes."""
    whole = finished.study.model_dump()
    for section, values in changes.items():
        changes[section] = {**whole[section], **values}
    images = finished.study.data.folder
    assert images is not None
    ordinary = experiment_in(
        images.parent, str(tmp_path), one_source_at_a_time=False, seed_draws=["head"], **changes
    )
    ordinary.finetune(list(ordinary.study.all_methods), [0])
    for name in ("adam", "swa", "pswa"):
        own, other = record_of(finished.store, name, seed), record_of(ordinary.store, name, 0)
        assert own.identity == other.identity
        assert own.arrays_sha256 == other.arrays_sha256


def test_a_seed_that_draws_split_and_backbone_together_has_both(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    made = experiment_in(tmp_path, one_source_at_a_time=False, seed_draws=["split", "backbone"])
    made.finetune(["swa"], [0, 1])
    assert np.array_equal(start(made, 0), start(made, 1))
    assert orders(made, 0) == orders(made, 1)
    assert rows(made, 0)["train"] != rows(made, 1)["train"]
    assert backbone(made, 0) != backbone(made, 1)


# --- features ----------------------------------------------------------------------------------


def test_each_split_and_backbone_is_made_once_and_one_is_held_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images")
    alive: list[int] = []
    made: list[weakref.ref[Materials]] = []

    class Counted(Materials):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            alive.append(sum(one() is not None for one in made))
            made.append(weakref.ref(self))
            super().__init__(*arguments, **options)

    monkeypatch.setattr(experiments, "Materials", Counted)
    experiment = experiment_in(tmp_path)
    experiment.finetune(list(experiment.study.all_methods), EVERY)
    assert alive == [0] * 5  # the study's own, two splits, two backbones
    # Features of training and of test images; only those of the study's own backbone are kept.
    assert sorted(call["keep"] for call in asked) == 4 * [False] + 6 * [True]


def test_a_finished_study_of_sources_loads_nothing(
    finished: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(experiments, "Materials", fail)
    images = finished.study.data.folder
    assert images is not None
    again = experiment_in(images.parent)
    assert again.pretrain(EVERY) == 0
    assert again.finetune(list(again.study.all_methods), EVERY) == 0


def test_an_interrupted_study_of_sources_gives_what_a_whole_one_does(
    finished: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = finished.study.data.folder
    assert images is not None
    again = experiment_in(images.parent, str(tmp_path))
    pretrained: list[int] = []
    carry_out = Execution.carry_out

    def noted(self: Execution, stage: Stage, seed: int, *given: Any) -> Turns:
        if stage is self.study.pretrain:
            pretrained.append(seed)
        return carry_out(self, stage, seed, *given)

    monkeypatch.setattr(Execution, "carry_out", noted)
    again.pretrain([3, 0, 6])
    again.finetune(["swa"], [7, 2])
    again.finetune(list(again.study.all_methods), EVERY)
    assert sorted(pretrained) == EVERY  # none twice
    for name in again.study.run_names:
        for seed in EVERY:
            expected = record_of(finished.store, name, seed).arrays_sha256
            assert record_of(again.store, name, seed).arrays_sha256 == expected


# --- what reads records ------------------------------------------------------------------------


def test_records_of_drawn_backbones_are_read_and_mixed_up_ones_refused(
    finished: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, store = finished.study, finished.store
    assert len(collect(study, store, EVERY).all()) == 8 * len(study.row_names)
    digests = {backbone(finished, seed) for seed in EVERY}
    assert len(digests) == 3
    find, other = RecordStore.find, backbone(finished, 3)

    def mixed_up(self: RecordStore, method: str, seed: int) -> Record | None:
        record = find(self, method, seed)
        if record and (method, seed) == ("pswa", 7):
            return replace(record, provenance={**record.provenance, "backbone": other})
        return record

    monkeypatch.setattr(RecordStore, "find", mixed_up)
    with pytest.raises(InputError, match=r"seed-7.* different data or backbone than .*seed-7"):
        collect(study, store, EVERY)


def test_an_export_is_of_the_seeds_own_backbone(finished: Experiment) -> None:
    one, other = (finished._materials(seed).backbone().state_dict() for seed in BACKBONES)
    assert not torch.equal(one["weight"], other["weight"])
    assert finished._trained("swa", 7).weights.tolist() == (
        record_of(finished.store, "swa", 7).arrays()["weights/average"].tolist()
    )


def test_a_landscape_of_such_seeds_is_refused_in_words(finished: Experiment) -> None:
    with pytest.raises(InputError, match="a landscape is measured on one split and one backbone"):
        finished.survey(EVERY)


def test_reproduce_of_a_study_of_sources_writes_the_sources_and_no_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_images(tmp_path / "images")
    study = study_on(images, **TURNS)
    (tmp_path / "turns.yaml").write_text(study.model_dump_json(exclude={"name"}))
    monkeypatch.setenv("SWABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(plan, "next_studies", lambda study, device: [f"{study.name} {device}"])
    options = ["--config", str(tmp_path / "turns.yaml"), "--results", str(tmp_path / "results")]
    done = CliRunner().invoke(app, ["reproduce", *options, "--device", "cpu", "--quiet"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "turns cpu"  # what to run next
    for words in (
        "landscape: not measured",
        "no comparison of methods",
        "claims: not decided",
        "Seeds draw one of these at a time",
    ):
        assert words in done.output
    # Training and test images of the study's own split, two others and two backbones, each once.
    assert len(asked) == 2 * 5
    written = {path.name for path in (tmp_path / "results" / "turns").glob("*.*")}
    assert written == {"sources.csv", "sources.md", "metrics.csv", "manifest.json", "report.html"}
    pictures = {path.name for path in (tmp_path / "results" / "turns" / "figures").iterdir()}
    assert pictures == {"sources.png", "sources.svg"}
    again = CliRunner().invoke(app, ["claims", *options, "--json"])
    assert again.exit_code == 0
    assert '"claims": []' in again.output


def test_validate_says_what_seeds_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swabench.runs.estimate.estimate", lambda *_: Estimate(1, 1))
    options = ["--results", str(tmp_path), "--device", "cpu"]
    for name, words in (
        ("mnist", "the order of the data; one split and one backbone serve all seeds."),
        ("mnist-sources", "Seeds draw one of these at a time, while the others are held"),
    ):
        done = CliRunner().invoke(app, ["validate", "--config", name, *options])
        assert done.exit_code == 0, done.output
        assert words in done.output
