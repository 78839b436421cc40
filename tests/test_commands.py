"""Commands and their options: what is handed on, counted and told.

A cheap stand-in makes the features, or notes what it was asked for; all else is the product's own.
"""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner, Result

from swabench.cli import app, plan
from swabench.cli.drawing import draw_rate
from swabench.cli.options import AskedWork
from swabench.cli.printing import out
from swabench.records import RecordStore
from swabench.runs.estimate import Estimate
from swabench.runs.experiment import Experiment
from swabench.runs.tuning import LOOKED_AT
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.system.errors import InputError, SwabenchError
from swabench.system.progress import LineProgress, SilentProgress
from tests.made_up import set_costs, small_study, write_study
from tests.test_front_door import as_yaml
from tests.test_wiring import put_stand_in, study_on, write_images

PROGRESS = {True: SilentProgress, False: LineProgress}  # by --quiet
asked_threads: list[int] = []


def invoke(*arguments: str) -> Result:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder and a cache of its own; threads are noted and left as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch, "set_num_threads", asked_threads.append)
    asked_threads.clear()


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study whose features a stand-in makes, as the file tiny.yaml."""
    put_stand_in(monkeypatch)
    study = study_on(write_images(tmp_path / "images"), name="tiny")
    as_yaml(study, tmp_path)
    return study


# --- what is done, and was done before -------------------------------------------------------


def test_what_was_done_before_is_told_apart(tiny: Study, tmp_path: Path) -> None:
    where = ("--config", "tiny.yaml", "--device", "cpu", "--quiet")
    told = invoke("pretrain", *where, "--seeds", "1").stdout
    assert told == "pretraining: 1 seeds trained, 0 already done\n"
    told = invoke("pretrain", *where, "--seeds", "3").stdout
    assert told == "pretraining: 2 seeds trained, 1 already done\n"
    done = invoke("finetune", *where, "-m", "sgd", "-m", "swa", "--seeds", "3")
    beside = 3 * len(tiny.all_methods) - 6
    assert done.stdout == (
        f"fine-tuning: 6 runs done (and {beside} that train together with them), 0 already done\n"
    )
    for name in ("swa", "pswa"):
        shutil.rmtree(next(tmp_path.glob(f"results/tiny/runs/{name}/seed-1-*")))
    done = invoke("finetune", *where, "-m", "all", "--seeds", "3")
    others = 3 * len(tiny.all_methods) - 2
    assert done.stdout == f"fine-tuning: 2 runs done, {others} already done\n"


def test_a_landscape_is_measured_once_and_written(tiny: Study, tmp_path: Path) -> None:
    where = ("--config", "tiny.yaml", "--device", "cpu", "--quiet", "--seeds", "0-1")
    assert invoke("finetune", *where, "-m", "all").exit_code == 0
    done = invoke("landscape", *where)
    assert "landscape: 7 parts measured" in done.stdout  # lines at both seeds
    documents = tmp_path / "results" / "tiny"
    assert f"written to {Path('results') / 'tiny'}: landscape-lines.csv" in done.stdout
    assert set(pd.read_csv(documents / "landscape-lines.csv")["seed"]) == {0, 1}
    (documents / "flatness.csv").unlink()
    assert "landscape: 0 parts measured" in invoke("landscape", *where).stdout
    assert (documents / "flatness.csv").is_file()


def test_documents_for_people_are_shown_with_their_title_and_files(
    tmp_path: Path,
) -> None:
    study = small_study()
    store = write_study(tmp_path / "results", study, without=[("swa", 1)])
    as_yaml(study, tmp_path)
    done = invoke("table", "--config", "smoke.yaml", "--seeds", "1")
    assert done.exit_code == 0, done.stderr
    assert study.title in done.stdout
    assert "written to results/smoke: table.csv, table.md" in done.stdout
    assert set(pd.read_csv(store.folder / "metrics.csv")["seed"]) == {0}
    done = invoke("table", "--config", "smoke.yaml")
    assert done.exit_code == 1
    assert "swa lacks seeds 1" in done.stderr
    assert invoke("claims", "--config", "smoke.yaml", "--seeds", "1").exit_code == 0


# --- what options hand on --------------------------------------------------------------------


class NotedError(SwabenchError):
    """Ends a command where the work would begin, with what it was given."""


@pytest.mark.parametrize("quiet", [True, False])
def test_a_tuning_gets_every_option(
    tiny: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    found: list[Any] = []

    def run_trials(*given: Any) -> None:
        found.extend(given)
        raise NotedError("noted")

    monkeypatch.setattr("swabench.runs.tuning.run_trials", run_trials)
    options = ("-c", "tiny.yaml", "-r", "elsewhere", "-d", "cpu", "-t", "3")
    done = invoke("tune", *options, *(["-q"] if quiet else []))
    assert (done.exit_code, done.stderr) == (1, "error: noted\n")
    study, results, make = found
    assert (study, results) == (tiny, Path("elsewhere"))
    made = make(study, tmp_path / "trials", measured=["validation"])
    assert made.store.folder == tmp_path / "trials" / "tiny"
    assert (made._device, made._cache) == (torch.device("cpu"), tmp_path / "cache")
    assert type(made._progress) is PROGRESS[quiet]
    assert made._measured == ["validation"]
    assert asked_threads == [3]
    found.clear()
    assert invoke("tune").exit_code == 1
    assert found[0] == load_study("mnist-tuned")
    assert found[1] == Path("results")
    assert asked_threads == [3]  # left to torch
    with pytest.raises(InputError, match="tpu"):
        AskedWork("tiny.yaml", device="tpu").experiment(tiny)


@pytest.mark.parametrize("quiet", [True, False])
def test_an_experiment_gets_every_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    found: dict[str, Any] = {}

    def pretrain(self: Experiment, seeds: list[int]) -> int:
        found.update(vars(self), seeds=seeds)
        return len(seeds)

    monkeypatch.setattr(Experiment, "pretrain", pretrain)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    options = ["-c", "smoke", "-r", "elsewhere", "-s", "4-5", "-d", "cpu", "-t", "3"]
    options += ["--save-every", "30s"]
    assert invoke("pretrain", *options, *(["-q"] if quiet else [])).exit_code == 0
    assert found["study"] == load_study("smoke")
    assert found["store"].folder == Path("elsewhere") / "smoke"
    assert found["seeds"] == [4, 5]
    assert found["_device"] == torch.device("cpu")
    assert found["_cache"] == tmp_path / "cache"
    assert type(found["_progress"]) is PROGRESS[quiet]
    assert found["_execution"].save_every == 30
    assert asked_threads == [3]
    assert torch.backends.cudnn.deterministic
    assert invoke("pretrain").exit_code == 0
    assert found["study"] == load_study("mnist")
    assert found["store"].folder == Path("results") / "mnist"
    assert found["seeds"] == list(load_study("mnist").seeds)
    assert type(found["_progress"]) is LineProgress
    assert asked_threads == [3]
    assert invoke("pretrain", "--device", "tpu").exit_code == 2


@pytest.mark.parametrize("command", ["pretrain", "tune", "validate", "reproduce"])
def test_no_thread_is_too_few(command: str) -> None:
    done = invoke(command, "--threads", "0", "--config", "no-such-study")
    assert done.exit_code == 2
    assert "--threads" in done.stderr


def test_an_export_says_what_was_written(tiny: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, int]] = []

    def export(self: Experiment, method: str, seed: int) -> dict[str, torch.Tensor]:
        asked.append((self.study.name, method, seed))
        assert isinstance(self._progress, SilentProgress)
        assert self._device == torch.device("cpu")
        return {"fc.bias": torch.zeros(4)}

    monkeypatch.setattr(Experiment, "export", export)
    monkeypatch.setattr(Experiment, "normalization", lambda _: ((0.25,), (0.125,)))
    options = ("-c", "tiny.yaml", "-m", "swa", "-o", "swa.pth", "-d", "cpu", "-t", "2", "-q")
    done = invoke("export", *options)
    assert done.exit_code == 0, done.output
    assert "swa.pth: swa at seed 0, 4 classes" in done.stdout
    assert f"resized to {tiny.data.image_size} pixels" in done.stdout
    assert "by mean 0.250000 and deviation 0.125000" in done.stdout
    assert torch.load("swa.pth")["fc.bias"].shape == (4,)
    assert asked_threads == [2]
    assert invoke("export", *options, "--seed", "3", "-r", "other").exit_code == 0
    assert asked == [("tiny", "swa", 0), ("tiny", "swa", 3)]


def test_an_export_is_of_the_default_study(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def export(self: Experiment, *_: object) -> None:
        asked.append(self.store.folder)
        raise NotedError("noted")

    monkeypatch.setattr(Experiment, "export", export)
    assert invoke("export", "-m", "swa", "-o", "a.pth").exit_code == 1
    assert asked == [Path("results") / "mnist"]
    assert not Path("a.pth").exists()


@pytest.mark.parametrize("quiet", [True, False])
def test_data_tells_its_source_beside_its_results(tiny: Study, quiet: bool) -> None:
    done = invoke("data", "--config", "tiny.yaml", *(["--quiet"] if quiet else []))
    assert done.exit_code == 0
    first, *digests = done.stdout.splitlines()
    assert first == (
        "folder: 60 training and 36 test images, 4 classes, from a folder named in the study"
    )
    assert [line.split()[:2] for line in digests] == [
        [name, "sha256"] for name in sorted(path.name for path in Path("images").iterdir())
    ]
    assert len({line.split()[2] for line in digests}) == 4
    assert ("verified" in done.stderr) != quiet


def test_data_are_looked_for_in_the_users_cache(tmp_path: Path) -> None:
    (tmp_path / "cache" / "mnist").mkdir(parents=True)
    done = invoke("data")
    assert done.exit_code == 2
    assert f"delete {tmp_path / 'cache' / 'mnist'} to have it fetched again" in done.stderr


def test_without_a_command_help_is_shown() -> None:
    assert all(f" {command} " in invoke().output for command in ("reproduce", "table", "export"))


# --- validate --------------------------------------------------------------------------------


def test_validate_says_in_words_what_would_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study()
    methods = study.model_dump()["methods"]
    controls = {"soup": {**methods["swa"], "averaging": {"plan": "newest"}, "title": "Newest"}}
    sweep = {"methods": ["sgd"], "rates": [0.1, 0.2]}
    study = Study.model_validate({**study.model_dump(), "controls": controls, "rate_sweep": sweep})
    write_study(tmp_path / "results", study, without=[("soup", 1), ("sgd", 0), ("sgd", 1)])
    as_yaml(study, tmp_path)
    asked: list[Any] = []

    def estimate(*given: Any) -> Estimate:
        asked.append(given)
        return Estimate(200, 7200)

    set_costs(monkeypatch, estimate)
    done = invoke("validate", "-c", "smoke.yaml", "-d", "cpu", "-t", "3", "-s", "0-2")
    assert done.exit_code == 0, done.output
    runs = len(study.run_names)
    start, after = study.pretrain, study.finetune
    assert done.stdout.splitlines() == [
        f"smoke: {study.title}: the study is valid",
        f"  trains      head by {start.name} ({start.epochs} epochs), then head "
        f"({after.epochs} epochs, batch {after.batch_size})",
        f"  rows        {', '.join([start.name, *study.methods])}",
        "  controls    soup",
        "  rate sweep  sgd-rate-0.1, sgd-rate-0.2",
        f"  fine-tunes  {runs - 1} runs per seed, on {runs - 2} trajectories",
        "  seeds       0, 1, 2",
        f"  draws       {study.draws_in_words}",
        f"  runs        {3 + runs} to do, {2 * runs - 3} done",
        "  time        about 3 min for the frozen layers (nothing if cached) and 2.0 h of training "
        "on cpu, from a probe of a few steps",
    ]
    assert asked_threads == [3]
    ((of, missing, device),) = asked
    assert of == study
    assert device == torch.device("cpu")
    assert missing == RecordStore(Path("results"), study).missing(study.run_names, [0, 1, 2])
    set_costs(monkeypatch, lambda *_: Estimate(0, 60))
    done = invoke("validate", "-c", "smoke.yaml", "-d", "cpu")
    assert "  time        about 60 s of training on cpu" in done.stdout
    assert f"  runs        3 to do, {2 * runs - 3} done" in done.stdout
    done = invoke("validate", "-c", "smoke.yaml", "-d", "cpu", "-s", "3,4")
    assert f"  runs        {2 * runs} to do, 0 done" in done.stdout
    (tmp_path / "all").mkdir()
    write_study(tmp_path / "all", study)
    done = invoke("validate", "-c", "smoke.yaml", "-d", "cpu", "-r", "all")
    assert "  time " not in done.stdout
    assert f"  runs        0 to do, {2 * runs} done" in done.stdout
    for device in ("tpu", "mps" if not torch.backends.mps.is_available() else "cuda"):
        assert invoke("validate", "-c", "smoke.yaml", "-d", device).exit_code == 2


def test_what_is_planned_for_programs_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_costs(monkeypatch, lambda *_: Estimate(1, 2))
    study = load_study("mnist-sources")
    found = plan.planned(study, tmp_path, [3, 5], torch.device("cpu"))
    start, after = study.pretrain, study.finetune
    assert found["title"] == study.title
    assert found["pretrain"] == {
        "name": start.name, "trainable": start.trainable, "epochs": start.epochs
    }  # fmt: skip
    assert found["finetune"] == {
        "trainable": after.trainable, "epochs": after.epochs, "batch_size": after.batch_size
    }  # fmt: skip
    assert found["seeds"] == [3, 5]
    assert found["seed_draws"] == list(study.seed_draws)
    assert found["one_source_at_a_time"] is True
    assert found["draws"] == study.draws_in_words
    assert found["rows"] == [start.name, *study.methods]
    assert found["controls"] == list(study.controls)
    assert found["tuning"] is None
    assert plan.planned(load_study("smoke"), tmp_path, [0], torch.device("cpu"))[
        "one_source_at_a_time"
    ] is False  # fmt: skip


def test_a_tunings_time_is_of_its_trials_on_the_images_they_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[int, ...], int, tuple[Any, ...]]] = []

    def estimate(study: Study, missing: list[Any], _: object, *measured: Any) -> Estimate:
        asked.append((study.seeds, len(missing), measured))
        return Estimate(0, 3600 * (1 + bool(measured)))

    set_costs(monkeypatch, estimate)
    study = load_study("mnist-tuned")
    found = plan.planned(study, tmp_path, study.seeds, torch.device("cpu"), tuned=False)
    runs, trials = found["runs"]["to_do"], found["tuning"]["runs"]["to_do"]
    assert [count for _, count, _ in asked] == [len(runs), len(trials)]
    assert [list(seeds) for seeds, *_ in asked] == [list(study.seeds), found["tuning"]["seeds"]]
    assert [measured for *_, measured in asked] == [(), (LOOKED_AT,)]
    lines = plan.in_words(found)
    assert lines[-1].startswith(f"{'':14}about 2.0 h of training on cpu")
    assert lines[-2] == f"{'':14}{len(trials)} runs to do, 0 done"
    assert found["tuning"]["sides"].keys() == {"averaging", "annealed"}
    assert found["tuning"]["seeds"] == list(study.tuning.seeds if study.tuning else [])


def test_the_hint_at_a_network_is_of_all_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def estimate(*given: Any) -> Estimate:
        asked.append(given)
        return Estimate(1, 60)

    gpu = torch.device("cuda")
    monkeypatch.setattr("swabench.system.device.choose_device", lambda name: gpu)
    monkeypatch.setattr("swabench.runs.estimate.estimate", estimate)
    assert len(plan.next_studies(load_study("mnist"), "auto")) == 2
    ((study, runs, device),) = asked
    assert study == load_study("network")
    assert set(runs) == {(name, seed) for name in study.run_names for seed in study.seeds}
    assert device == gpu
    asked.clear()
    gpu = torch.device("mps")
    assert len(plan.next_studies(load_study("mnist"), "auto")) == 2
    layer4, (trials, runs, _, measured) = asked[0][0], asked[1]
    assert layer4 == load_study("layer4")
    assert set(runs) == {(name, seed) for name in trials.run_names for seed in (1000, 1001)}
    assert len(trials.methods) == 30
    assert "test" not in measured


# --- methods ---------------------------------------------------------------------------------


def test_methods_are_drawn_to_one_scale_with_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_study("smoke").model_dump()
    rates = {"low": 0.01, "high": 0.04}
    methods: dict[str, Any] = {
        name: {"title": f"At {rate}", "rate": {"schedule": "constant", "learning_rate": rate}}
        for name, rate in rates.items()
    }
    methods["mean"] = {**methods["low"], "averaging": {"phases": 1}}
    methods["ahead"] = {**methods["low"], "optimizer": {"name": "lookahead"}}
    changes: dict[str, Any] = {
        "controls": None,
        "rate_sweep": None,
        "claims": {},
        "reference": "low",
    }
    study = Study.model_validate({**whole, **changes, "methods": methods})
    as_yaml(study, tmp_path)
    epochs = study.finetune.epochs
    shown = invoke("methods", "--config", "smoke.yaml").stdout
    assert "a full cell is 0.04" in shown
    assert f"{study.title}: {epochs} epochs of fine-tuning after {study.pretrain.epochs}" in shown
    assert "4 rows on 3 trajectories" in shown
    parts = dict(zip(methods, shown.split("\n\n")[1:], strict=True))
    for name, part in parts.items():
        head, words, *drawn = part.splitlines()
        method = study.methods[name]
        assert head == f"{name} ({method.title})"
        assert f"rate {method.rate.describe()}; " in words
        assert ("no averaging" in words) == (name != "mean")
        assert words.endswith("; optimizer lookahead") == (name == "ahead")
        expected = draw_rate(method.timeline(epochs, 100), 0.04, epochs, 4)
        assert drawn == [f"  {line}" for line in expected if line.strip()]
    assert "█" * 4 * epochs in parts["high"]
    assert "█" not in parts["low"]
    assert "o" in parts["mean"].splitlines()[-1]
    for width, cells in ((2 + 3 * epochs, 3), (2 + 4 * epochs - 1, 3), (5, 1)):
        monkeypatch.setattr(out, "_width", width)
        narrow = invoke("methods", "--config", "smoke.yaml").stdout
        assert f"  {'█' * cells * epochs}\n" in narrow


# --- files that cannot be used ---------------------------------------------------------------


def test_results_that_cannot_be_entered_are_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in, because a superuser may enter all."""
    study = small_study()
    write_study(tmp_path / "results", study)
    as_yaml(study, tmp_path)
    entered = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        if path.parts[-3:-1] == ("runs", "swa"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return entered(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    done = invoke("table", "--config", "smoke.yaml")
    assert done.exit_code == 2
    assert "runs/swa/seed-0" in done.stderr.replace("\n", "")
    assert "Permission denied; look at its place and rights" in done.stderr


def test_a_disk_that_fails_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "somewhere")

    monkeypatch.setattr("swabench.cli.inspection.load_study", fails)
    done = invoke("methods")
    assert done.exit_code == 1
    assert "error: somewhere: Input/output error" in done.stderr
