"""Files: complete or not there, and nothing left behind by writers that were killed."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swabench.system import files
from swabench.system.files import (
    in_bytes,
    new_folder,
    remove_leftovers,
    sha256_of_file,
    sha256_of_json,
    write_file,
)

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from swabench.system import files
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
place = Path(sys.argv[1])
if sys.argv[2] == "file":
    files.write_file(place, b"new")
else:
    with files.new_folder(place) as folder:
        (folder / "part").write_bytes(b"new")
"""


def kill_a_writer(place: Path, kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_WRITING, str(place), kind], check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL


def fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_file_is_written_with_the_folders_above_it(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "b.txt", b"text")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"text"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_failed_write_keeps_the_old_file_and_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "a.txt", b"old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_file(tmp_path / "a.txt", b"new")
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    rename = os.replace

    def replace(before: Path, after: Path) -> None:
        rename(before, after)
        events.append(f"named {after.name}")

    def sync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        events.append("synced " + ("temporary" if name.startswith(".writing-") else name))

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "fsync", sync)
    write_file(tmp_path / "a" / "file", b"text")
    assert events == ["synced temporary", "named file", "synced a"]
    events.clear()
    with new_folder(tmp_path / "a" / "run") as folder:
        (folder / "one").write_text("1")
        (folder / "two").write_text("2")
    assert events == ["synced one", "synced two", "synced temporary", "named run", "synced a"]


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    with new_folder(tmp_path / "run") as folder:
        (folder / "part").write_text("one")
        assert not (tmp_path / "run").exists()
    assert (tmp_path / "run" / "part").read_text() == "one"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_could_not_be_filled_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with new_folder(tmp_path / "run") as folder:
            (folder / "part").write_text("one")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_of_a_folder_the_first_wins(tmp_path: Path) -> None:
    with new_folder(tmp_path / "run") as slow:
        (slow / "part").write_text("slow")
        with new_folder(tmp_path / "run") as fast:
            (fast / "part").write_text("fast")
    assert (tmp_path / "run" / "part").read_text() == "fast"
    assert len(list(tmp_path.iterdir())) == 1


def test_folders_are_readable_by_others(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    with new_folder(tmp_path / "run"):
        pass
    assert (tmp_path / "run").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_is_removed(tmp_path: Path, kind: str) -> None:
    kill_a_writer(tmp_path / "place", kind)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".writing-")
    assert remove_leftovers(tmp_path) == [left]
    assert list(tmp_path.iterdir()) == []


def test_what_a_living_writer_writes_is_left_alone(tmp_path: Path) -> None:
    with new_folder(tmp_path / "run") as folder:
        (folder / "part").write_text("one")
        assert remove_leftovers(tmp_path) == []
    assert (tmp_path / "run" / "part").read_text() == "one"


def test_what_another_users_living_writer_writes_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_permitted(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", not_permitted)
    with new_folder(tmp_path / "run") as folder:
        assert remove_leftovers(tmp_path) == []
        assert folder.is_dir()


def test_another_machines_files_are_left_alone_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same process number on another machine says nothing about a process of this one.
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    kept = files._temporary(tmp_path)
    kept.write_text("half")
    monkeypatch.undo()
    assert remove_leftovers(tmp_path) == []
    old = time.time() - files.SECONDS_UNTIL_STALE - 1
    os.utime(kept, (old, old))
    assert remove_leftovers(tmp_path) == [kept]


def test_temporary_names_differ_between_machines_and_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {files._temporary(tmp_path).name for _ in range(50)}
    assert len(names) == 50
    monkeypatch.setattr("socket.gethostname", lambda: "node/7 of-cluster.example")
    assert re.fullmatch(
        rf"\.writing-node_7_of_cluster\.example-{os.getpid()}-[0-9a-f]{{8}}",
        files._temporary(tmp_path).name,
    )


def test_a_digest_does_not_depend_on_a_mappings_order() -> None:
    assert sha256_of_json({"a": 1, "b": [2]}) == sha256_of_json({"b": [2], "a": 1})
    assert sha256_of_json({"a": 1}) != sha256_of_json({"a": 2})


def test_a_folder_that_cannot_be_put_in_its_place_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run would count as recorded that is not."""
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"), new_folder(tmp_path / "run") as folder:
        (folder / "part").write_text("one")
    assert list(tmp_path.iterdir()) == []


def test_old_files_of_other_names_are_not_left_behind_by_anybody(tmp_path: Path) -> None:
    for name in ("table.csv", ".hidden", "writing-x"):
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    assert remove_leftovers(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("hours", "removed"), [(23, False), (25, True)])
def test_a_day_is_a_day(tmp_path: Path, hours: int, removed: bool) -> None:
    left = tmp_path / ".writing-elsewhere-1-00000000"
    left.mkdir()
    then = time.time() - hours * 3600
    os.utime(left, (then, then))
    assert remove_leftovers(tmp_path) == [left] * removed
    assert left.exists() != removed


def test_a_long_machines_name_makes_no_name_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "x" * 300)
    write_file(tmp_path / "a.txt", b"text")
    assert (tmp_path / "a.txt").read_bytes() == b"text"


def test_a_files_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 5000)
    expected = hashlib.sha256(bytes(range(256)) * 5000).hexdigest()
    assert sha256_of_file(tmp_path / "a") == expected


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (7840, "7.8 kB"), (1.25e7, "12.5 MB"),
     (3e9, "3.0 GB"), (4.2e13, "42000.0 GB")],
)  # fmt: skip
def test_a_size_is_told_in_a_unit_that_shows_it(size: float, words: str) -> None:
    assert in_bytes(size) == words
