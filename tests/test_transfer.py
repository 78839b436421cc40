"""A backbone that is another study's run, and BatchNorm's statistics measured on other images."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.optim.swa_utils import update_bn

from swabench.cli import plan
from swabench.data.datasets import folder_digest
from swabench.data.inputs import named_files, starting_run
from swabench.records import RecordStore
from swabench.runs.estimate import Estimate
from swabench.runs.experiment import Experiment
from swabench.runs.features import batchnorm_statistics
from swabench.runs.materials import Materials
from swabench.study.identity import Identities, NamedFiles
from swabench.study.inputs import BackboneSettings, RunOfStudy
from swabench.study.loading import bundled_studies, load_study
from swabench.study.study import Study
from swabench.system.errors import InputError, SwabenchError
from swabench.system.progress import SilentProgress
from swabench.training.backbone import Preprocess, load_backbone
from swabench.training.flat import flatten
from tests.made_up import set_costs
from tests.test_network import own_images, study_of

__all__ = ["own_images"]  # a fixture

CPU = torch.device("cpu")
NORMALIZATION = ((0.3,), (0.2,))


def write_study(folder: Path, name: str, study: Study, **backbone: Any) -> Path:
    """A study as a file, with keys of its backbone replaced."""
    content = study.model_dump(mode="json", exclude={"name", "landscape", "claims"})
    content["backbone"] |= backbone
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def studies(own_images: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A study of all layers, and one whose backbone is its pretraining."""
    whole = study_of(own_images, "all", "all", standardize=False)
    heads = study_of(own_images, "head", "head")
    run = {"study": "source.yaml", "method": "adam", "seed": 0}
    source = write_study(tmp_path, "source", whole)
    return source, write_study(tmp_path, "other", heads, weights=run, reestimate_batchnorm=True)


def test_the_run_is_found_from_where_the_study_lies(
    studies: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, other = studies
    monkeypatch.chdir("/")
    assert load_study(str(other)).backbone.weights == RunOfStudy(
        study=str(source), method="adam", seed=0
    )


def test_files_that_a_study_names_count_each_in_its_place(
    studies: tuple[Path, Path], own_images: Path, tmp_path: Path
) -> None:
    source, other = (load_study(str(path)) for path in studies)
    images = folder_digest(own_images)
    run = Identities(source, NamedFiles(data=images)).run("adam", 0)
    assert named_files(source) == NamedFiles(data=images)
    assert named_files(other) == NamedFiles(data=images, weights=run)
    bare = tmp_path / "weights"  # neither its name nor torchvision says what it is
    bare.write_bytes(b"some weights")
    expected = hashlib.sha256(b"some weights").hexdigest()
    assert named_files(with_weights(source, str(bare))).weights == expected
    # A folder of a published data set holds the published bytes, wherever it lies.
    mnist = load_study("mnist")
    placed = mnist.model_copy(update={"data": mnist.data.model_copy(update={"folder": tmp_path})})
    assert named_files(placed) == named_files(mnist) == NamedFiles()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_a_file_of_weights_that_is_missing_is_named(tmp_path: Path, suffix: str) -> None:
    study = with_weights(load_study("mnist"), str(tmp_path / f"absent{suffix}"))
    with pytest.raises(InputError, match=rf"backbone\.weights: .*absent{suffix} cannot be read"):
        named_files(study)
    assert named_files(with_weights(study, "IMAGENET1K_V2")) == NamedFiles()


def with_weights(study: Study, weights: str) -> Study:
    return study.model_copy(
        update={"backbone": study.backbone.model_copy(update={"weights": weights})}
    )


def test_a_study_depends_on_all_that_the_run_depends_on(studies: tuple[Path, Path]) -> None:
    source, other = studies

    def identity() -> str:
        study = load_study(str(other))
        return Identities(study, named_files(study)).pretraining(0)

    before, content = identity(), yaml.safe_load(source.read_text())
    for key, value in (("epochs", 2), ("title", "Another title")):
        changed = {**content, "pretrain": {**content["pretrain"], key: value}}
        source.write_text(yaml.safe_dump(changed))
        assert (identity() == before) == (key == "title")
    source.write_text(yaml.safe_dump(content))
    moved = other.parent / "elsewhere.yaml"  # the same run by another path
    source.rename(moved)
    other.write_text(other.read_text().replace("source.yaml", "elsewhere.yaml"))
    assert identity() == before
    for key, value in (("method", "swa"), ("seed", 1)):
        text = other.read_text()
        run = {**yaml.safe_load(text)["backbone"]["weights"], key: value}
        whole = yaml.safe_load(text)
        whole["backbone"]["weights"] = run
        other.write_text(yaml.safe_dump(whole))
        assert identity() != before
        other.write_text(text)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"study": "nowhere"}, r"backbone\.weights\.study: .*'nowhere' is neither a file nor"),
        ({"method": "swa-2"}, r"backbone\.weights\.method: 'swa-2' is not a row of study 'source'"),
        ({"study": "mnist-tuned"}, r"'mnist-tuned' is tuned before it runs"),
        ({"study": "other.yaml"}, r"other → other: the studies start from each other in a circle"),
    ],
)
def test_a_run_that_cannot_be_meant_is_refused(
    studies: tuple[Path, Path], run: dict[str, str], message: str
) -> None:
    path = studies[1]
    content = yaml.safe_load(path.read_text())
    content["backbone"]["weights"] |= run
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=message):
        RecordStore(path.parent, load_study(str(path)))


@pytest.mark.parametrize("name", bundled_studies())
def test_runs_that_bundled_studies_start_from_are_there(name: str) -> None:
    study = load_study(name)
    found = starting_run(study)
    assert (found is not None) == isinstance(study.backbone.weights, RunOfStudy)
    if found:
        source, run = found
        assert run.method == source.pretrain.name  # the methods of such a study are not meant


def test_statistics_are_those_of_the_images_given(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (13, 1, 28, 28), dtype=np.uint8)

    def measured(some: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
        network = load_backbone(BackboneSettings())
        return batchnorm_statistics(
            some, network, 28, NORMALIZATION,
            device=CPU, cache=tmp_path, progress=SilentProgress(),
        )  # fmt: skip

    network = load_backbone(BackboneSettings())
    update_bn([Preprocess(28, NORMALIZATION)(torch.from_numpy(images))], network)
    found = measured(images)
    expected = flatten(network)[1]
    torch.testing.assert_close(found[:128], expected[:128], rtol=1e-5, atol=1e-6)
    # Fifty layers on, over thirteen maps of one pixel, another rounding shows.
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.005)
    assert torch.equal(measured(images), found)  # from the cache
    assert not torch.equal(measured(images[:12]), found)
    assert len(list((tmp_path / "statistics").glob("*/features.json"))) == 2


def test_validate_counts_the_run_that_comes_first(
    studies: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_time", lambda *_: {"device": "cpu", "error": "not tried"})
    study = load_study(str(studies[1]))
    found = plan.planned(study, tmp_path, [0], CPU)
    assert found["starts_from"]["to_do"] == [("adam", 0)]
    (first,) = (line for line in plan.in_words(found) if "starts from" in line)
    assert first == "  starts from adam at seed 0 of study source, which runs first:"
    done = {**found, "starts_from": {**found["starts_from"], "to_do": []}}
    assert "  starts from adam at seed 0 of study source, which is done" in plan.in_words(done)
    assert plan.planned(load_study("mnist"), tmp_path, [0], CPU)["starts_from"] is None


def test_validate_times_both_stages_of_the_run_that_comes_first(
    studies: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yaml.safe_load(studies[1].read_text())
    content["backbone"]["weights"] |= {"method": "sgd", "seed": 4}
    studies[1].write_text(yaml.safe_dump(content))

    def estimate(study: Study, runs: list[tuple[str, int]], *_: object) -> Estimate:
        return Estimate(0, {"source": 7200, "other": 120}[study.name] * len(runs))

    set_costs(monkeypatch, estimate)
    study = load_study(str(studies[1]))
    found = plan.planned(study, tmp_path, [0], CPU)["starts_from"]
    assert {key: found[key] for key in ("study", "method", "seed", "to_do")} == {
        "study": "source",
        "method": "sgd",
        "seed": 4,
        "to_do": [("adam", 4), ("sgd", 4)],
    }
    lines = plan.in_words(plan.planned(study, tmp_path, [0], CPU))
    place = lines.index("  starts from sgd at seed 4 of study source, which runs first:")
    assert lines[place + 1].startswith(f"{'':14}about 4.0 h of training")
    assert not any("tuning" in line for line in lines)


@pytest.mark.slow
def test_the_other_study_runs_first_and_once(studies: tuple[Path, Path], tmp_path: Path) -> None:
    source, other = (load_study(str(path)) for path in studies)
    told: list[str] = []

    class Told(SilentProgress):
        def say(self, line: str) -> None:
            told.append(line)

    results, cache = tmp_path / "results", tmp_path / "cache"
    experiment = Experiment(other, results, CPU, cache, Told())
    assert experiment.pretrain([0]) == 1
    assert "other starts from adam at seed 0 of study source, which runs first" in told
    record = RecordStore(results, source).find("adam", 0)
    assert record is not None
    assert not RecordStore(results, source).find("sgd", 0)  # nobody asked for it
    when = record.folder.stat().st_mtime_ns
    told.clear()
    assert Experiment(other, results, CPU, cache, Told()).finetune(["sgd"], [0]) == 2
    assert not [line for line in told if "runs first" in line]
    assert record.folder.stat().st_mtime_ns == when
    state = Experiment(source, results, CPU, cache, SilentProgress()).export("adam", 0)
    made = Materials(other, CPU, cache, SilentProgress(), state=state)
    convolutions = made.backbone().layer4[2].conv3.weight
    assert torch.equal(convolutions, state["layer4.2.conv3.weight"])
    own = made.backbone().layer4[2].bn3.running_var
    assert not torch.equal(own, state["layer4.2.bn3.running_var"])
    # On the training images alone: those that are held out play no part.
    few = made.splits("all")["train"].inputs.numpy()
    network = load_backbone(other.backbone, state)
    update_bn([Preprocess(28, made.normalization)(torch.from_numpy(few))], network)
    torch.testing.assert_close(own, network.layer4[2].bn3.running_var, rtol=0.05, atol=0.005)
    found = RecordStore(results, other).find("adam", 0)
    assert found is not None
    assert found.provenance["backbone"] == made.provenance("head")["backbone"]
    # What the other study asks of its start counts here, too.
    content = yaml.safe_load(studies[0].read_text())
    content["pretrain"]["minimum_accuracy"] = 99.9
    studies[0].write_text(yaml.safe_dump(content))
    with pytest.raises(SwabenchError, match=r"^source: adam reaches .*accuracy is 99\.9 %"):
        Experiment(other, results, CPU, cache, SilentProgress()).pretrain([1])
