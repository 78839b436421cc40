"""What a record says it was made with."""

import subprocess
from pathlib import Path

import pytest

from swabench.system import environment


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
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    head = git(checkout, "rev-parse", "HEAD")
    assert environment.commit() == head
    (checkout / "results").mkdir()
    (checkout / "results" / "table.md").write_text("what a run wrote")
    assert environment.commit() == head
    (checkout / "swabench" / "system" / "environment.py").write_text("second\n")
    assert environment.commit() == f"{head}-modified"
