"""The command line as a user meets it: real processes, real ResNet-50, a tiny data set."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from swabench.data.datasets import encode_idx

COMMANDS = [
    "data",
    "pretrain",
    "finetune",
    "landscape",
    "table",
    "figures",
    "claims",
    "report",
    "reproduce",
    "methods",
    "validate",
]
STUDY = """
extends: smoke
title: A tiny study
data: {{dataset: folder, folder: {folder}, validation_images: 20, training_images: null, test_images: null}}
finetune: {{batch_size: 16}}
"""  # noqa: E501

pytestmark = pytest.mark.slow


class Place:
    """A folder with a tiny data set, a study on it, a cache and results of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "images"
        self.cache = folder / "cache"
        self.study = folder / "tiny.yaml"
        self.results = folder / "results"
        self.data.mkdir()
        rng = np.random.default_rng(0)
        for part, count in (("train", 100), ("t10k", 40)):
            labels = (np.arange(count) % 10).astype(np.uint8)
            images = rng.integers(0, 80, (count, 28, 28), dtype=np.uint8)
            images[np.arange(count), labels * 2] = 255  # a bright row tells the class
            (self.data / f"{part}-images-idx3-ubyte").write_bytes(encode_idx(images))
            (self.data / f"{part}-labels-idx1-ubyte").write_bytes(encode_idx(labels))
        self.study.write_text(STUDY.format(folder=self.data))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "swabench", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SWABENCH_CACHE": str(self.cache), "COLUMNS": "200"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    def records(self) -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in self.results.rglob("record.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("finished"))
    done = place.run("reproduce", "--config", "tiny.yaml")
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def fresh(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_reproduce_ends_with_the_table(finished: Place) -> None:
    found = pd.read_csv(finished.results / "tiny" / "table.csv")
    assert list(found["method"]) == [
        "adam", "sgd", "sgd-multiplicative", "swa", "swa-cyclical", "pswa",
    ]  # fmt: skip
    assert (found["seeds"] == 2).all()
    assert found["accuracy"].between(0, 100).all()
    for name in ("table.md", "table.tex", "manifest.json", "metrics.csv"):
        assert (finished.results / "tiny" / name).stat().st_size > 0


def test_a_second_reproduce_does_nothing_twice(finished: Place) -> None:
    records = finished.records()
    before = (finished.results / "tiny" / "table.csv").read_bytes()
    done = finished.run("reproduce", "--config", "tiny.yaml")
    assert done.returncode == 0
    assert "features" not in done.stderr
    assert finished.records() == records
    assert (finished.results / "tiny" / "table.csv").read_bytes() == before


def test_the_same_study_gives_the_same_bytes(finished: Place, fresh: Place) -> None:
    shutil.copytree(finished.cache, fresh.cache)
    assert fresh.run("reproduce", "--config", "tiny.yaml").returncode == 0
    ours, theirs = (place.results / "tiny" / "table.csv" for place in (fresh, finished))
    assert ours.read_bytes() == theirs.read_bytes()


def test_table_needs_records_alone(finished: Place, fresh: Place) -> None:
    # The study keeps naming the data folder of `finished`, for it is part of its identity.
    shutil.copytree(finished.results, fresh.results)
    shutil.copy(finished.study, fresh.study)
    hidden = finished.data.rename(finished.folder / "hidden")
    try:
        done = fresh.run("table", "--config", "tiny.yaml")
    finally:
        hidden.rename(finished.data)
    assert done.returncode == 0, done.stderr
    assert "swa-cyclical" in done.stdout


def test_a_partial_table_says_so_and_fails(fresh: Place) -> None:
    done = fresh.run("finetune", "-m", "sgd", "-m", "swa", "--config", "tiny.yaml", "--seeds", "1")
    assert done.returncode == 0, done.stderr
    assert "2 runs done" in done.stdout
    done = fresh.run("table", "--config", "tiny.yaml", "--seeds", "1")
    assert done.returncode == 1
    assert "INCOMPLETE" in done.stderr
    assert "pswa lacks seeds 0" in (fresh.results / "tiny" / "table.md").read_text()


def test_interrupted_work_goes_on_where_it_stopped(fresh: Place) -> None:
    fresh.study.write_text(fresh.study.read_text() + "seeds: 400\n")
    process = subprocess.Popen(
        fresh.command("reproduce", "--config", "tiny.yaml"), cwd=fresh.folder,
        env=fresh.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(fresh.records()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    kept = fresh.records()
    assert len(kept) >= 3
    done = fresh.run("reproduce", "--config", "tiny.yaml", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    assert kept.items() <= fresh.records().items()
    assert not list(fresh.results.rglob(".writing-*"))


def test_a_diverged_run_is_told_after_all_else_is_written(fresh: Place) -> None:
    wild = "{schedule: constant, learning_rate: 1.0e+38}"
    with fresh.study.open("a") as study:
        study.write(f"methods: {{wild: {{title: Wild, rate: {wild}}}}}\n")
    done = fresh.run("reproduce", "--config", "tiny.yaml", "--seeds", "1")
    assert done.returncode == 1
    assert "wild at seed 0 (loss not finite after epoch 1)" in done.stderr
    assert "INCOMPLETE: wild lacks seeds 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert "swa-cyclical" in (fresh.results / "tiny" / "table.csv").read_text()
    assert (fresh.results / "tiny" / "report.html").exists()


def test_diverged_pretraining_is_a_failure(fresh: Place) -> None:
    with fresh.study.open("a") as study:
        study.write("pretrain: {optimizer: {name: sgd}, rate: ")
        study.write("{schedule: constant, learning_rate: 1.0e+38}}\n")
    done = fresh.run("pretrain", "--config", "tiny.yaml", "--seeds", "1")
    assert done.returncode == 1
    assert "adam at seed 0" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(fresh: Place, command: str) -> None:
    done = fresh.run(command, "--help")
    assert done.returncode == 0
    assert "--config" in done.stdout


def test_claims_and_report_need_records_alone(finished: Place, tmp_path: Path) -> None:
    folder = finished.results / "tiny"
    written = {name: (folder / name).read_bytes() for name in ("claims.md", "report.html")}
    copy = Place(tmp_path)
    shutil.copytree(finished.results, copy.results)
    shutil.copy(finished.study, copy.study)
    for name in ("claims", "report"):
        done = copy.run(name, "--config", "tiny.yaml")
        assert done.returncode == 0, done.stderr
    assert not copy.cache.exists()
    for name, content in written.items():
        assert (copy.results / "tiny" / name).read_bytes() == content
    verdicts = pd.read_csv(folder / "claims.csv").groupby("claim")["verdict"].first()
    assert verdicts["C4"] == "not distinguished"
    assert verdicts["C7"] == "not distinguished"


def test_claims_of_missing_runs_are_written_and_the_command_fails(
    finished: Place, tmp_path: Path
) -> None:
    copy = Place(tmp_path)
    shutil.copytree(finished.results, copy.results)
    shutil.copy(finished.study, copy.study)
    shutil.rmtree(next((copy.results / "tiny" / "runs" / "sgd-rate-0.05").glob("seed-1-*")))
    done = copy.run("claims", "--config", "tiny.yaml")
    assert done.returncode == 1
    assert "sgd-rate-0.05 lacks seeds 1" in done.stderr
    assert "sgd-rate-0.05 lacks seeds 1" in (copy.results / "tiny" / "claims.md").read_text()


def test_validate_says_what_it_would_run(finished: Place) -> None:
    done = finished.run("validate", "--config", "tiny.yaml", "--seeds", "0-2")
    assert done.returncode == 0, done.stderr
    assert "9 to do, 18 done" in done.stdout


def test_methods_draws_the_rates(fresh: Place) -> None:
    done = fresh.run("methods")
    assert done.returncode == 0
    assert "█" in done.stdout
    assert "p = 3" in done.stdout


def test_data_says_from_where_and_digests(fresh: Place) -> None:
    done = fresh.run("data", "--config", "tiny.yaml")
    assert done.returncode == 0
    assert "100 training and 40 test images, 10 classes" in done.stdout
    assert done.stdout.count("sha256") == 4


WRONG = {
    "no such study": (["reproduce", "--config", "mnits"], "mnits"),
    "unknown method": (["finetune", "--method", "swaa", "--config", "tiny.yaml"], "swaa"),
    "unknown device": (["reproduce", "--device", "tpu", "--config", "tiny.yaml"], "tpu"),
    "absent device": (["reproduce", "--device", "mps", "--config", "tiny.yaml"], "mps"),
    "bad seeds": (["reproduce", "--seeds", "a-b", "--config", "tiny.yaml"], "a-b"),
    "half a span": (["reproduce", "--seeds", "5-", "--config", "tiny.yaml"], "5-"),
    "too many seeds": (["table", "--seeds", "99999999999", "--config", "tiny.yaml"], "99999999999"),
    "unknown option": (["reproduce", "--sedes", "1"], "--sedes"),
    "unknown command": (["reprodcue"], "reprodcue"),
    "no records": (["table", "--config", "tiny.yaml"], "swabench reproduce"),
    "results in a file": (
        ["reproduce", "--config", "tiny.yaml", "--results", "tiny.yaml"],
        "--results",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_is_told_in_words(fresh: Place, name: str) -> None:
    arguments, named = WRONG[name]
    before = sorted(fresh.folder.rglob("*"))
    done = fresh.run(*arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(fresh.folder.rglob("*")) == before


def test_damaged_data_is_named(fresh: Place) -> None:
    path = fresh.data / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    done = fresh.run("reproduce", "--config", "tiny.yaml")
    assert done.returncode == 2
    assert "train-images-idx3-ubyte" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_write_permission_is_named(fresh: Place) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    fresh.results.mkdir(mode=0o500)
    done = fresh.run("reproduce", "--config", "tiny.yaml")
    assert done.returncode == 2
    assert str(fresh.results.name) in done.stderr


def test_no_network_and_no_data_says_what_to_do(fresh: Place) -> None:
    environment = {**fresh.environment, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    environment |= {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        fresh.command("data", "--config", "mnist"), cwd=fresh.folder, env=environment,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "data.folder" in done.stderr
    assert "Traceback" not in done.stderr
