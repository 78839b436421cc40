"""Tuning as a user meets it: trained from IDX files to choices, by the command line.

A cheap stand-in makes the features; all else is the product's own.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
import yaml
from typer.testing import CliRunner, Result

from swabench import load
from swabench.analysis import figures
from swabench.cli import app, plan
from swabench.data.datasets import Dataset, load_dataset
from swabench.data.idx import encode_idx
from swabench.runs import materials
from swabench.runs.estimate import Estimate, count_images
from swabench.runs.experiment import Experiment
from swabench.runs.materials import Materials
from swabench.runs.tuning import LOOKED_AT, run_trials
from swabench.study.inputs import DataSettings, SplitName
from swabench.study.loading import load_study
from swabench.study.optimizers import SGD
from swabench.study.published import Sizes
from swabench.study.search_space import tuning_of
from swabench.study.study import Study
from swabench.study.tuning import in_words
from swabench.system.progress import SilentProgress
from swabench.training.heads import StackedHeads
from swabench.training.learner import Split
from swabench.training.loop import DataOrder, run_plans
from swabench.training.observers import Outcome
from tests import test_plans as plans
from tests.running import train
from tests.test_wiring import CPU, put_stand_in, write_images

RIGHT = 0.001
"""Of the three rates below one hardly moves and one destroys: the optimum is known."""
STUDY = """
extends: smoke
title: A tiny tuned study
data:
  {{dataset: folder, folder: {folder}, validation_images: 24, selection_images: 8,
    training_images: null, test_images: null}}
pretrain: {{batch_size: 16, rate: {{schedule: constant, learning_rate: 0.00001}}}}
finetune: {{batch_size: 10}}
methods:
  greedy-soup:
    title: Greedy soup
    rate: {{schedule: constant, learning_rate: 0.01}}
    averaging: {{plan: greedy-soup}}
controls: null
rate_sweep: null
landscape:
  lines: {{points: 2, seeds: 1}}
  segments: {{points: 2, low: 0, high: 1, seeds: 1}}
  plane: {{points: 2, seeds: 1}}
  rays: {{directions: 1, points: 2, seeds: 1}}
  sharpness: {{epsilons: [0.001], starts: 1, steps: 1, seeds: 1}}
  hessian: {{probes: 2, tolerance: 0.5, seeds: 1}}
tuning:
  seeds: [7, 9]
  trials_per_family: 3
  sides: {{averaging: [swa, greedy-soup], annealed: [sgd, sgd-multiplicative]}}
  families:
    sgd: {{rate.learning_rate: [1.0e-9, 0.001, 30]}}
    sgd-multiplicative: {{rate.learning_rate: [1.0e-9, 0.001, 30], rate.every_epochs: [2]}}
    swa: {{rate.learning_rate: [1.0e-9, 0.001, 30]}}
    greedy-soup: {{rate.learning_rate: [1.0e-9, 0.001, 30]}}
"""
CHOSEN = {
    "sgd": {"rate.learning_rate": RIGHT},
    "sgd-multiplicative": {"rate.learning_rate": RIGHT, "rate.every_epochs": 2},
    "swa": {"rate.learning_rate": RIGHT},
    "greedy-soup": {"rate.learning_rate": RIGHT},
}


class Place:
    """A folder with a tiny study, its images and its results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.study = folder / "tiny.yaml"
        self.documents = folder / "results" / "tiny"

    def run(self, command: str, *arguments: str) -> Result:
        own = ["--config", str(self.study), "--results", str(self.folder / "results")]
        environment = {"SWABENCH_CACHE": str(self.folder / "cache"), "COLUMNS": "200"}
        done = CliRunner().invoke(app, [command, *arguments, *own], env=environment)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def choices(self) -> Any:
        return yaml.safe_load((self.documents / "choices.yaml").read_text())

    def trial_records(self) -> dict[str, int]:
        """When each trial's record was written."""
        found = self.documents.rglob("tuning/runs/*/*/record.json")
        return {str(p.relative_to(self.documents)): p.stat().st_mtime_ns for p in found}


def make_place(folder: Path) -> Place:
    place = Place(folder)
    write_images(place.images)
    place.study.write_text(STUDY.format(folder=place.images))
    return place


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Stand-in features, and figures as SVG alone: pixels take longest."""
    with pytest.MonkeyPatch.context() as patch:
        put_stand_in(patch)
        patch.setattr(figures, "FORMATS", ("svg",))
        patch.setattr("swabench.analysis.figures.tuning.FORMATS", ("svg",))
        yield


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """What `swabench tune` leaves behind; tests copy it before they change it."""
    place = make_place(tmp_path_factory.mktemp("tuned"))
    done = place.run("tune")
    assert done.exit_code == 0, done.output
    return place


@pytest.fixture(scope="module")
def reproduced(tuned: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Result]:
    place = copy_of(tuned, tmp_path_factory.mktemp("reproduced"))
    done = place.run("reproduce")
    assert done.exit_code == 0, done.output
    return place, done


def copy_of(place: Place, folder: Path) -> Place:
    """The same study with its results, of images in the same folder as before."""
    shutil.copytree(place.folder, folder, dirs_exist_ok=True)
    return Place(folder)


# --- the choice ------------------------------------------------------------------------------


def test_the_known_optimum_is_chosen_for_every_family(tuned: Place) -> None:
    found = tuned.choices()
    assert {family: choice["settings"] for family, choice in found["families"].items()} == CHOSEN
    assert all(choice["at_edge"] == [] for choice in found["families"].values())
    assert all(choice["trials"] == 3 for choice in found["families"].values())
    assert found["seeds"] == [7, 9]
    table = pd.read_csv(tuned.documents / "tuning.csv")
    assert table.groupby("family").size().to_dict() == dict.fromkeys(CHOSEN, 3)
    assert (table["seeds"] == 2).all()
    losses = table[table["chosen"]].set_index("family")["loss"]
    assert found["sides"] == {
        "averaging": losses[["swa", "greedy-soup"]].idxmin(),
        "annealed": losses[["sgd", "sgd-multiplicative"]].idxmin(),
    }
    assert (tuned.documents / "figures" / "tuning.svg").stat().st_size > 0


def test_no_trials_record_knows_the_test_images(tuned: Place) -> None:
    paths = list(tuned.documents.rglob("record.json"))
    assert len(paths) == 2 * (1 + 12)
    for path in paths:
        record = json.loads(path.read_text())
        assert {m["split"] for m in record["history"]} == {"validation"}
        arrays = safetensors.numpy.load_file(path.with_name("arrays.safetensors"))
        assert arrays
        assert not [name for name in arrays if name.endswith(("/test", "/selection"))]
        assert set(record["provenance"]["features"]["head"]) == {"training"}


def test_other_test_images_change_no_choice(tuned: Place, tmp_path: Path) -> None:
    other = make_place(tmp_path)
    rng = np.random.default_rng(99)
    pixels = rng.integers(0, 256, (20, 6, 6)).astype(np.uint8)
    labels = rng.integers(4, size=20).astype(np.uint8)
    (other.images / "t10k-images-idx3-ubyte").write_bytes(encode_idx(pixels))
    (other.images / "t10k-labels-idx1-ubyte").write_bytes(encode_idx(labels))
    assert other.run("tune").exit_code == 0
    for name in ("choices.yaml", "tuning.csv", "tuning.md", "figures/tuning.svg"):
        ours, theirs = (place.documents / name for place in (tuned, other))
        assert ours.read_bytes() == theirs.read_bytes(), name


class Untouchable:
    """A test set of which nothing but its length may be asked."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the test images were asked for their {name}")

    def __getitem__(self, rows: object) -> Any:
        raise AssertionError("the test images were looked at")

    def __array__(self, *_: object, **__: object) -> Any:
        raise AssertionError("the test images were looked at")


def test_the_test_images_are_not_even_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def guarded(*arguments: Any) -> Dataset:
        whole = load_dataset(*arguments)
        closed: Any = Untouchable(len(whole.test_labels))
        return replace(whole, test_images=closed, test_labels=closed)

    monkeypatch.setattr(materials, "load_dataset", guarded)
    place = make_place(tmp_path)
    study = load_study(str(place.study))

    def make(study: Study, results: Path, **options: Any) -> Experiment:
        return Experiment(study, results, CPU, tmp_path / "cache", SilentProgress(), **options)

    found = run_trials(study, tmp_path / "results", make)
    assert found == 24
    with pytest.raises(AssertionError, match="looked at"):  # the guard does guard
        Materials(study, CPU, tmp_path / "cache", SilentProgress()).splits("head")


def test_what_is_not_measured_changes_nothing_else() -> None:
    """Training, averages and choices by selection images are those of a whole study."""
    data = plans.splits()
    whole, part = (trained(data, splits) for splits in (("validation", "test"), LOOKED_AT))
    for name, outcome in part.items():
        beside = whole[name]
        for predictor, weights in outcome.weights.items():
            assert torch.equal(weights, beside.weights[predictor]), name
        assert outcome.history == [m for m in beside.history if m.split == "validation"]
        assert outcome.log_probabilities.keys() == {
            (predictor, split)
            for predictor, split in beside.log_probabilities
            if split == "validation"
        }
        assert outcome.labels.keys() == {"validation"}


def trained(data: dict[SplitName, Split], measured: Sequence[SplitName]) -> dict[str, Outcome]:
    order = DataOrder(44, plans.BATCH, 1, 1)
    steps = order.steps_per_epoch
    start = torch.zeros(plans.CLASSES * (plans.FEATURES + 1), dtype=torch.float64)
    learner = StackedHeads(data, start.expand(1, -1), SGD(name="sgd"), plans.CLASSES)
    followed = run_plans(plans.METHODS, plans.EPOCHS, steps)
    there = {split: data[split] for split in ("train", "selection", *measured)}
    found = train(learner, followed, there, order, plans.EPOCHS, measured=measured)
    return dict(zip(plans.METHODS, found, strict=True))


def test_trials_are_done_once_and_chosen_anew_from_records(tuned: Place, tmp_path: Path) -> None:
    place = copy_of(tuned, tmp_path)
    (place.documents / "choices.yaml").unlink()
    done = place.run("tune")
    assert done.exit_code == 0
    assert "tuning: 0 runs done" in done.output
    assert place.choices() == tuned.choices()


@pytest.mark.parametrize("allowed", ["record", "fail"])
def test_a_trial_that_diverges_is_recorded_and_shown_and_not_chosen(
    tuned: Place, tmp_path: Path, allowed: str
) -> None:
    place = copy_of(tuned, tmp_path)
    wild = place.study.read_text().replace(", 30]", ", 1.0e+38]")
    place.study.write_text(f"{wild}diverged: {allowed}\n")
    for runs in (8, 0):
        done = place.run("tune")
        assert done.exit_code == (allowed == "fail"), done.output
        assert f"tuning: {runs} runs done" in done.stdout
        assert "sgd-1e38 at seeds 7, 9 (loss not finite after epoch 1)" in done.stderr
        assert "sgd-1e38 diverged at 2 of 2 seeds" in done.stdout
        assert place.choices()["families"]["sgd"]["settings"] == CHOSEN["sgd"]
    table = pd.read_csv(place.documents / "tuning.csv").set_index("trial")
    assert table["diverged"].to_dict() == {n: 2 * ("1e38" in n) for n in table.index}
    assert table.loc[table["diverged"] > 0, ["loss", "accuracy"]].isna().all(axis=None)
    done = place.run("reproduce", "--seeds", "1")  # the same, though it tunes no more
    assert done.exit_code == (allowed == "fail"), done.output
    assert ("sgd-1e38 at seeds 7, 9" in done.stderr) == (allowed == "fail")
    assert (place.documents / "report.html").exists()


# --- a study that is tuned -------------------------------------------------------------------


def test_a_tuned_study_runs_with_what_was_chosen(
    tuned: Place, reproduced: tuple[Place, Result]
) -> None:
    place, done = reproduced
    assert "tuning first" not in done.output
    assert place.trial_records().keys() == tuned.trial_records().keys()
    table = pd.read_csv(place.documents / "table.csv").set_index("method")
    assert table.loc["swa", "title"] == "SWA, constant rate (learning_rate 0.001)"
    assert (table["seeds"] == 2).all()
    manifest = json.loads((place.documents / "manifest.json").read_text())
    assert manifest["study"]["methods"]["sgd"]["rate"]["learning_rate"] == RIGHT
    assert manifest["study"]["tuning"]["chosen"] == place.choices()
    report = (place.documents / "report.html").read_text()
    for family, choice in place.choices()["families"].items():
        words = in_words(choice["settings"])
        assert f">{family}</th>" in report
        assert f"<span>{words}</span>" in report
    test = [m for p in place.documents.glob("runs/swa/*/record.json")
            for m in json.loads(p.read_text())["history"] if m["split"] == "test"]  # fmt: skip
    assert test


def test_records_of_a_tuned_study_are_loaded(reproduced: tuple[Place, Result]) -> None:
    place, _ = reproduced
    for config in (None, str(place.study)):
        frame = load(place.documents, config)
        assert frame.attrs["source"] == "records"
        assert sorted(frame["seed"].unique()) == [0, 1]


def test_a_finished_study_has_nothing_left_to_do(reproduced: tuple[Place, Result]) -> None:
    place, _ = reproduced
    assert place.run("table").exit_code == 0
    done = place.run("validate")
    assert "runs        0 to do, 14 done" in done.stdout
    assert "0 runs to do, 26 done" in done.stdout


def test_choices_without_records_are_enough(tuned: Place, tmp_path: Path) -> None:
    """They are committed; records are not."""
    place = copy_of(tuned, tmp_path)
    shutil.rmtree(place.documents / "tuning")
    done = place.run("finetune", "--method", "sgd", "--seeds", "1")
    assert done.exit_code == 0, done.output
    assert not place.trial_records()
    planned = json.loads(place.run("validate", "--json").stdout)
    assert planned["tuning"]["runs"]["to_do"] == []
    assert planned["tuning"]["time"] is None


@pytest.mark.parametrize(
    "command",
    [
        "table", "figures", "claims", "report", "landscape", "pretrain", "finetune --method sgd",
        "export --method sgd --output x.pth",
    ],
)  # fmt: skip
def test_without_choices_other_commands_say_what_to_do(tmp_path: Path, command: str) -> None:
    place = make_place(tmp_path)
    done = place.run(*command.split())
    assert done.exit_code == 2
    assert f"run `swabench tune --config {place.study}`" in done.stderr
    assert not place.documents.exists()


def test_a_study_that_was_not_tuned_is_tuned_first(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    done = place.run("reproduce", "--seeds", "1")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("tuning first: ")
    assert {f: c["settings"] for f, c in place.choices()["families"].items()} == CHOSEN
    assert pd.read_csv(place.documents / "table.csv")["title"].str.contains("0.001").sum() == 4


def test_another_search_space_is_tuned_anew(tuned: Place, tmp_path: Path) -> None:
    place = copy_of(tuned, tmp_path)
    before = place.trial_records()
    place.study.write_text(place.study.read_text().replace("0.001", "0.002"))
    done = place.run("table")
    assert done.exit_code == 2
    assert "swabench tune" in done.stderr
    assert place.run("tune").exit_code == 0
    assert place.choices()["families"]["swa"]["settings"] == {"rate.learning_rate": 0.002}
    assert place.choices()["search_space"] != tuned.choices()["search_space"]
    after = place.trial_records()
    assert before.items() <= after.items()  # what is the same in both is not done again
    assert len(after) == len(before) + 2 * 4


def test_seeds_that_tuned_the_study_are_refused(tuned: Place) -> None:
    done = tuned.run("table", "--seeds", "5-7")
    assert done.exit_code == 2
    assert "--seeds: 7 tuned the study" in done.stderr


def test_validate_counts_the_trials(tmp_path: Path) -> None:
    planned = json.loads(make_place(tmp_path).run("validate", "--json").stdout)
    tuning = planned["tuning"]
    assert tuning["families"] == list(CHOSEN)
    assert tuning["trials"] == 12
    assert len(tuning["runs"]["to_do"]) == 2 * (1 + 12)
    assert tuning["time"]["training_seconds"] > 0
    told = "\n".join(plan.in_words(planned))
    # The rates of three families are shared, those of the fourth decay.
    assert "12 trials on 6 trajectories: 4 families with 3 each; seeds 7, 9" in told
    assert "26 runs to do, 0 done" in told


def test_test_images_are_no_part_of_a_tunings_time() -> None:
    sizes, data = Sizes(100, 40, 1, 6, 6, 4), DataSettings(validation_images=30)
    assert count_images(data, sizes).measured == 70
    assert count_images(data, sizes, LOOKED_AT).measured == 30


def test_a_tuning_as_json(tuned: Place, tmp_path: Path) -> None:
    place = copy_of(tuned, tmp_path)
    done = place.run("tune", "--json", "--quiet")
    found = json.loads(done.stdout)
    assert found["families"]["swa"]["settings"] == CHOSEN["swa"]
    assert len(found["all_trials"]) == 12
    assert found["study"] == "tiny"


def test_a_study_without_search_spaces_is_told(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    place.study.write_text("extends: smoke\ntitle: None\n")
    done = place.run("tune")
    assert done.exit_code == 2
    assert "no section `tuning`" in done.stderr


def test_methods_says_that_rates_are_chosen_later(tuned: Place) -> None:
    done = CliRunner().invoke(app, ["methods", "--config", str(tuned.study)])
    assert "swabench tune" in done.stdout
    assert "swabench tune" not in CliRunner().invoke(app, ["methods"]).stdout


def test_the_default_study_ends_with_the_fair_one_and_a_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("swabench.runs.estimate.estimate", lambda *_: Estimate(600, 9000))
    fair, network = plan.next_studies(load_study("mnist"), "cpu")
    assert "swabench reproduce --config mnist-tuned" in fair
    assert (
        "--config layer4` fine-tunes ResNet-50's last stage, in about 5.2 h" in network
    )  # with tuning
    assert plan.next_studies(load_study("mnist-tuned"), "cpu") == []
    assert plan.next_studies(load_study("layer4"), "cpu") == []
    assert tuning_of(load_study("mnist-tuned")).sides
