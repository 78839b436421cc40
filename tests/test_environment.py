"""What a record says it was made with."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import pytest
import torch

import swabench
from swabench.system import environment
from swabench.system.device import describe_device, describe_processor


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source checkout with one commit, in which the package is said to lie."""
    module = tmp_path / "swabench" / "system" / "environment.py"
    module.parent.mkdir(parents=True)
    module.write_text("first\n")
    monkeypatch.setattr(environment, "__file__", str(module))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    person = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *person, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_code_that_differs_from_its_commit_is_marked(checkout: Path) -> None:
    assert environment.commit() is None
    git(checkout, "init", "-q")
    assert environment.commit() is None  # there is none yet
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    head = git(checkout, "rev-parse", "HEAD")
    assert environment.commit() == head
    (checkout / "results").mkdir()
    (checkout / "results" / "table.md").write_text("what a run wrote")
    assert environment.commit() == head
    (checkout / "configs").mkdir()
    for page in (checkout / "README.md", checkout / "configs" / "README.md"):
        page.write_text("with the numbers of a run")
        assert environment.commit() == head
    (checkout / "new.py").write_text("not committed")
    assert environment.commit() == f"{head}-modified"
    (checkout / "new.py").unlink()
    (checkout / "swabench" / "system" / "environment.py").write_text("second\n")
    assert environment.commit() == f"{head}-modified"


def test_a_record_says_what_it_was_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "commit", lambda: "c0ffee")
    libraries = ("torch", "torchvision", "numpy", "pandas", "scipy", "safetensors")
    assert environment.environment(torch.device("cpu")) == {
        "swabench": swabench.__version__,
        "commit": "c0ffee",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": "cpu",
        "device_name": describe_device(torch.device("cpu")),
        "processor": describe_processor(),
        "threads": torch.get_num_threads(),
        **{name: importlib.metadata.version(name) for name in libraries},
    }


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    assert environment.commit() is not None
    monkeypatch.setenv("PATH", "")
    assert environment.commit() is None


def test_a_git_that_does_not_answer_is_no_git(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / ".git").mkdir()

    def slow(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("git", 30)

    monkeypatch.setattr(subprocess, "run", slow)
    assert environment.commit() is None
