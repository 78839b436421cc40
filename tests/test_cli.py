"""The command line as a user meets it: real ResNet-50, a tiny data set.

A command runs within this process where one of its own would prove nothing more, through the
entry point and with its exit codes and streams. Real processes are left to what needs them: a
whole `reproduce`, an interruption, starting up.
"""

import importlib.metadata
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import typer
from torchvision.models import resnet50

from swabench.analysis import figures
from swabench.cli import app, main
from swabench.data.idx import encode_idx
from swabench.runs.experiment import Experiment
from swabench.system.errors import SwabenchError
from swabench.training.backbone import Preprocess

COMMANDS = [
    "claims",
    "data",
    "export",
    "figures",
    "finetune",
    "landscape",
    "methods",
    "pretrain",
    "repair",
    "report",
    "reproduce",
    "status",
    "table",
    "tune",
    "validate",
]
STUDY = """
extends: smoke
title: A tiny study
data: {{dataset: folder, folder: {folder}, validation_images: 20, selection_images: 10, training_images: null, test_images: null}}
finetune: {{batch_size: 16}}
"""  # noqa: E501
TINY = ("--config", "tiny.yaml")
METHODS = ["adam", "sgd", "sgd-multiplicative", "swa", "swa-cyclical", "pswa"]


@dataclass(frozen=True)
class Done:
    """What a command leaves behind beside its files."""

    code: int | str | None
    out: str
    errors: str


class Place:
    """A folder with a study of the tiny data set and results of its own.

    Features are shared by all places, unless one gets a cache of its own.
    """

    def __init__(self, folder: Path, images: Path, cache: Path) -> None:
        self.folder = folder
        self.images = images
        self.cache = cache
        self.study = folder / "tiny.yaml"
        self.results = folder / "results"
        self.study.write_text(STUDY.format(folder=images))

    @property
    def documents(self) -> Path:
        return self.results / "tiny"

    @property
    def environment(self) -> dict[str, str]:
        # One thread, as in this process: the number of threads changes the last digits.
        return {"SWABENCH_CACHE": str(self.cache), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}

    def run(self, *arguments: str, **environment: str) -> Done:
        """Run a command in this process, as its entry point would; a traceback fails the test."""
        out, errors = io.StringIO(), io.StringIO()
        with (
            chdir(self.folder),
            mock.patch.dict(os.environ, self.environment | environment),
            mock.patch.object(sys, "argv", ["swabench", *arguments]),
            redirect_stdout(out),
            redirect_stderr(errors),
            pytest.raises(SystemExit) as left,
        ):
            main()
        return Done(left.value.code, out.getvalue(), errors.getvalue())

    def process(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "swabench", *arguments], cwd=self.folder,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            # Where the tests run behind a shell's `&`, processes would ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def records(self) -> dict[str, int]:
        """When each record was written."""
        return {
            str(path.relative_to(self.results)): path.stat().st_mtime_ns
            for path in self.results.rglob("*")
            if path.name == "record.json" or path.parent.parent.name == "landscape"
        }

    def arrays(self) -> dict[str, bytes]:
        return contents(self.documents, "*.safetensors")


def ended(process: subprocess.Popen[str]) -> Done:
    out, errors = process.communicate(timeout=300)
    return Done(process.returncode, out, errors)


def wait_until(what: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Until something is so while a process runs; that it ends before fails the test."""
    deadline = time.monotonic() + 120
    while not what():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"it did not come to it: {ended(process).errors}")
        time.sleep(0.01)


def contents(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part, count in (("train", 100), ("t10k", 40)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        pixels = rng.integers(0, 80, (count, 28, 28), dtype=np.uint8)
        pixels[np.arange(count), labels * 2] = 255  # a bright row tells the class
        (folder / f"{part}-images-idx3-ubyte").write_bytes(encode_idx(pixels))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(encode_idx(labels))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, images: Path, cache: Path) -> Place:
    """What `reproduce` leaves behind, run whole in a process of its own."""
    place = Place(tmp_path_factory.mktemp("finished"), images, cache)
    done = ended(place.process("reproduce", *TINY))
    assert done.code == 0, done.errors
    return place


@pytest.fixture
def fresh(tmp_path: Path, images: Path, cache: Path) -> Place:
    return Place(tmp_path, images, cache)


@pytest.fixture
def recorded(finished: Place, tmp_path: Path) -> Place:
    """The records of `finished` alone, without its documents and its features."""
    place = Place(tmp_path, finished.images, tmp_path / "cache")
    for name in ("runs", "landscape"):
        shutil.copytree(finished.documents / name, place.documents / name)
    return place


@pytest.fixture
def _no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures as SVG alone: pixels take longest, and are compared in one test."""
    monkeypatch.setattr(figures, "FORMATS", ("svg",))


@pytest.mark.slow
def test_reproduce_ends_with_the_table(finished: Place) -> None:
    found = pd.read_csv(finished.documents / "table.csv")
    assert list(found["method"]) == METHODS
    assert (found["seeds"] == 2).all()
    # A bright row tells the class: what is trained at all finds it.
    assert found["accuracy"][1:].between(80, 100).all()
    for name in ("table.md", "table.tex", "manifest.json", "metrics.csv"):
        assert (finished.documents / name).stat().st_size > 0
    assert not list(finished.results.rglob(".writing-*"))


@pytest.mark.slow
def test_a_second_reproduce_does_nothing_twice(recorded: Place, finished: Place) -> None:
    records = recorded.records()
    assert records == finished.records()
    done = recorded.run("reproduce", *TINY)
    assert done.code == 0, done.errors
    assert recorded.records() == records
    assert "features" not in done.errors
    assert not (recorded.cache / "features").exists()
    assert contents(recorded.documents) == contents(finished.documents)


@pytest.mark.slow
def test_command_by_command_gives_the_bytes_of_reproduce(finished: Place, fresh: Place) -> None:
    """Of another process, too."""
    for command, told in {
        ("pretrain",): "2 seeds trained, 0 already done",
        ("finetune", "--method", "all"): "32 runs done, 0 already done",
        ("landscape",): "10 parts measured",
        ("table",): "written to",
    }.items():
        done = fresh.run(*command, *TINY)
        assert done.code == 0, done.errors
        assert told in done.out
    assert fresh.arrays() == finished.arrays()
    for name in ("table.csv", "metrics.csv", "ensemble.csv"):
        assert (fresh.documents / name).read_bytes() == (finished.documents / name).read_bytes()
    ours, theirs = (
        [json.loads(content)["tables"] for content in contents(of, "landscape/*/*.json").values()]
        for of in (fresh.documents, finished.documents)
    )
    assert len(ours) == 10
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.usefixtures("_no_pixels")
def test_each_document_needs_records_alone(recorded: Place, finished: Place) -> None:
    hidden = finished.images.rename(finished.images.with_name("hidden"))
    try:
        for command in ("table", "figures", "claims", "report"):
            done = recorded.run(command, *TINY)
            assert done.code == 0, done.errors
            if command == "table":
                assert "swa-cyclical" in done.out
    finally:
        hidden.rename(finished.images)
    assert not recorded.cache.exists()
    written, expected = (
        {
            # An SVG drawn without a PNG before it is laid out a little otherwise.
            name: None if name.endswith(".svg") else re.sub(rb"base64,[^\"]*", b"", content)
            for name, content in contents(place.documents).items()
            if not name.endswith(".png")
        }
        for place in (recorded, finished)
    )
    assert written == expected
    verdicts = pd.read_csv(recorded.documents / "claims.csv").groupby("claim")["verdict"].first()
    assert verdicts["C4"] != "not measured"
    assert verdicts["C7"] != "not measured"


@pytest.mark.slow
def test_a_partial_table_says_so_and_fails(fresh: Place) -> None:
    done = fresh.run("finetune", "-m", "sgd", "-m", "swa", *TINY, "--seeds", "1")
    assert done.code == 0, done.errors
    assert "2 runs done (and 13 that train together with them), 0 already done" in done.out
    shutil.rmtree(fresh.documents / "runs" / "pswa")
    done = fresh.run("table", *TINY, "--seeds", "1")
    assert done.code == 1
    assert "INCOMPLETE" in done.errors
    assert "pswa lacks seeds 0" in (fresh.documents / "table.md").read_text()


@pytest.mark.slow
def test_interrupted_work_goes_on_where_it_stopped(fresh: Place) -> None:
    fresh.study.write_text(fresh.study.read_text() + "seeds: 60\n")
    process = fresh.process("reproduce", *TINY)
    wait_until(lambda: list(fresh.results.glob("tiny/runs/swa/seed-1-*")), process)
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.code == 130, done.errors
    assert "the same command resumes" in done.errors
    assert "Traceback" not in done.errors
    kept = fresh.records()
    seeds = 2 + len(list(fresh.results.glob("tiny/runs/swa/seed-*")))
    assert seeds < 60  # some of it was left to do
    done = fresh.run("finetune", "-m", "all", *TINY, "--seeds", str(seeds))
    assert done.code == 0, done.errors
    assert kept.items() <= fresh.records().items()
    for method in METHODS[1:]:
        assert len(list(fresh.results.glob(f"tiny/runs/{method}/seed-*"))) == seeds


@pytest.mark.slow
@pytest.mark.usefixtures("_no_pixels")
def test_a_landscape_that_fails_is_told_after_all_else_is_written(
    recorded: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise SwabenchError("landscape: no room")

    monkeypatch.setattr(Experiment, "survey", fails)
    done = recorded.run("reproduce", *TINY)
    assert done.code == 1
    assert "landscape: no room" in done.errors
    assert (recorded.documents / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("_no_pixels")
def test_a_diverged_run_is_a_result_and_whether_it_is_a_failure_the_study_says(
    fresh: Place,
) -> None:
    wild = "{schedule: constant, learning_rate: 1.0e+38}"
    with fresh.study.open("a") as study:
        study.write(f"methods: {{wild: {{title: Wild, rate: {wild}}}}}\n")
    first = fresh.run("reproduce", *TINY, "--seeds", "1")
    records = fresh.records()
    assert any("/wild/" in name for name in records)
    with fresh.study.open("a") as study:
        study.write("diverged: record\n")
    allowed = fresh.run("reproduce", *TINY, "--seeds", "1")
    assert (first.code, allowed.code) == (1, 0)
    assert "wild at seed 0 (loss not finite after epoch 1)" in first.errors
    assert "set `diverged: record`" in first.errors
    assert allowed.errors == ""
    for done in (first, allowed):
        assert "INCOMPLETE" not in done.out + done.errors
        assert "diverged (1 of 1)" in done.out
        assert "landscape: not measured: runs of study 'tiny' diverged" in done.out
    assert fresh.records() == records  # nothing is trained again
    assert "swa-cyclical" in (fresh.documents / "table.csv").read_text()
    assert (fresh.documents / "report.html").exists()
    done = fresh.run("finetune", "-m", "wild", *TINY, "--seeds", "1")
    assert (done.code, "diverged: wild at seed 0" in done.errors) == (0, True)


@pytest.mark.slow
def test_diverged_pretraining_is_a_failure(fresh: Place) -> None:
    with fresh.study.open("a") as study:
        study.write("pretrain: {optimizer: {name: sgd}, rate: ")
        study.write("{schedule: constant, learning_rate: 1.0e+38}}\n")
    done = fresh.run("pretrain", *TINY, "--seeds", "1")
    assert done.code == 1
    assert "adam at seed 0" in done.errors
    with fresh.study.open("a") as study:
        study.write("diverged: record\n")
    done = fresh.run("pretrain", *TINY, "--seeds", "1")
    assert (done.code, "diverged: adam at seed 0" in done.errors) == (0, True)
    done = fresh.run("reproduce", *TINY, "--seeds", "1")  # what cannot start is missing
    assert (done.code, "No method can start there" in done.errors) == (1, True)
    assert "diverged (1 of 1)" in done.out


def test_quiet_work_says_its_result_alone(fresh: Place) -> None:
    done = fresh.run("pretrain", *TINY, "--seeds", "1", "--quiet")
    assert (done.code, done.errors) == (0, "")
    assert done.out == "pretraining: 1 seeds trained, 0 already done\n"
    assert fresh.run("pretrain", *TINY, "--seeds", "0-1").errors != ""
    done = fresh.run("data", "--config", "mnits", "--quiet")
    assert (done.code, "mnits" in done.errors) == (2, True)


@pytest.mark.slow
def test_the_command_starts_as_a_module_and_is_installed_as_a_script(fresh: Place) -> None:
    done = ended(fresh.process("--help"))
    assert (done.code, done.errors) == (0, "")
    assert all(f" {command} " in done.out for command in COMMANDS)
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="swabench")
    assert script.load() is main


def test_every_command_is_listed_here() -> None:
    commands: Any = typer.main.get_command(app)
    assert sorted(commands.commands) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(fresh: Place, command: str) -> None:
    done = fresh.run(command, "--help")
    assert done.code == 0
    assert "--config" in done.out


@pytest.mark.slow
def test_claims_of_missing_runs_are_written_and_the_command_fails(recorded: Place) -> None:
    shutil.rmtree(next((recorded.documents / "runs" / "sgd-rate-0.05").glob("seed-1-*")))
    done = recorded.run("claims", *TINY)
    assert done.code == 1
    assert "sgd-rate-0.05 lacks seeds 1" in done.errors
    assert "sgd-rate-0.05 lacks seeds 1" in (recorded.documents / "claims.md").read_text()


@pytest.mark.slow
def test_an_export_is_of_the_method_and_the_seed_asked_for(
    finished: Place, images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "swa.safetensors"
    done = finished.run("export", "--method", "swa", "--seed", "1", "-o", str(output), *TINY)
    assert done.code == 0, done.errors
    mean, deviation = (
        float(done.out.split(f"{word} ")[1].split(",")[0].split()[0])
        for word in ("mean", "deviation")
    )
    network = resnet50(num_classes=10).eval()
    network.load_state_dict(safetensors.torch.load_file(output))
    pixels = np.frombuffer((images / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8)
    inputs = torch.from_numpy(pixels.reshape(-1, 1, 28, 28).copy())
    with torch.no_grad():
        found = network(Preprocess(28, ((mean,), (deviation,)))(inputs)).log_softmax(dim=-1)
    (run,) = finished.documents.glob("runs/swa/seed-1-*/arrays.safetensors")
    expected = safetensors.torch.load_file(run)["log_probabilities/average/test"]
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_validate_says_what_it_would_run(finished: Place) -> None:
    done = finished.run("validate", *TINY, "--seeds", "0-2")
    assert done.code == 0, done.errors
    assert "17 to do, 34 done" in done.out


def test_methods_draws_the_rates(fresh: Place) -> None:
    done = fresh.run("methods")
    assert done.code == 0
    assert "█" in done.out
    assert "p = 3" in done.out


def test_data_says_from_where_and_digests(fresh: Place) -> None:
    done = fresh.run("data", *TINY)
    assert done.code == 0
    assert "100 training and 40 test images, 10 classes" in done.out
    assert done.out.count("sha256") == 4


ABSENT = "cuda" if torch.backends.mps.is_available() else "mps"
WRONG = {
    "no such study": (["reproduce", "--config", "mnits"], "mnits"),
    "unknown method": (["finetune", "--method", "swaa", *TINY], "swaa"),
    "unknown device": (["reproduce", "--device", "tpu", *TINY], "tpu"),
    "absent device": (["reproduce", "--device", ABSENT, *TINY], ABSENT),
    "bad seeds": (["reproduce", "--seeds", "a-b", *TINY], "a-b"),
    "half a span": (["reproduce", "--seeds", "5-", *TINY], "5-"),
    "too many seeds": (["table", "--seeds", "99999999999", *TINY], "99999999999"),
    "unknown option": (["reproduce", "--sedes", "1"], "--sedes"),
    "unknown command": (["reprodcue"], "reprodcue"),
    "no records": (["table", *TINY], "swabench reproduce"),
    "results in a file": (["reproduce", *TINY, "--results", "tiny.yaml"], "--results"),
    "export of no row": (["export", "-m", "swaa", "-o", "x.pth", *TINY], "swaa"),
    "export to a picture": (["export", "-m", "swa", "-o", "x.png", *TINY], "x.png"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_is_told_in_words(fresh: Place, name: str) -> None:
    arguments, named = WRONG[name]
    before = sorted([*fresh.folder.rglob("*"), *fresh.cache.rglob("*")])
    done = fresh.run(*arguments)
    assert done.code == 2
    assert named in done.errors
    assert sorted([*fresh.folder.rglob("*"), *fresh.cache.rglob("*")]) == before


def test_damaged_data_is_named(images: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(images, damaged)
    path = damaged / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    done = Place(tmp_path, damaged, tmp_path / "cache").run("reproduce", *TINY)
    assert done.code == 2
    assert "train-images-idx3-ubyte" in done.errors


def test_a_folder_without_write_permission_is_named(fresh: Place) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    fresh.results.mkdir(mode=0o500)
    done = fresh.run("reproduce", *TINY)
    assert done.code == 2
    assert str(fresh.results.name) in done.errors


@pytest.mark.slow
def test_no_network_and_no_data_says_what_to_do(images: Path, tmp_path: Path) -> None:
    away = "http://127.0.0.1:9"
    place = Place(tmp_path, images, tmp_path / "cache")
    done = place.run(
        "data", "--config", "mnist",
        PIP_NO_INDEX="1", PIP_FIND_LINKS="", https_proxy=away, http_proxy=away,
    )  # fmt: skip
    assert done.code == 2
    assert "data.folder" in done.errors
