"""Files: written atomically, digested, and cleared of what killed writers left behind.

What is written appears under its name complete or not at all, even where power fails: it is
written beside its place, under a temporary name of its own, and renamed. The temporary name says
which process of which machine writes it, so that another can tell whether that writer still lives.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from swabench.system.errors import InputError, in_short

SECONDS_UNTIL_STALE = 24 * 3600.0
"""After so long a temporary file of another machine counts as left behind."""

_TEMPORARY = re.compile(r"\.writing-(?P<host>.+)-(?P<process>\d+)-[0-9a-f]{8}")


def sha256(content: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; the file is not held in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: object) -> str:
    """The SHA-256 of a value made of JSON's types; a mapping's order does not count."""
    return sha256(json.dumps(value, sort_keys=True).encode())


def is_file(path: Path, where: str) -> bool:
    """Whether there is such a file.

    Args:
        path: Which.
        where: The option, or the file and the key, that names it; for messages.

    Raises:
        InputError: That cannot be told: a folder on the way to it cannot be entered, its name is
            too long, or it is no path at all.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{where}: {in_short(str(path))} cannot be looked at ({reason}); give another path"
        ) from None


def in_bytes(size: float) -> str:
    """A number of bytes in words: `512 bytes`, `3.4 MB`, `12.0 GB`."""
    for unit, worth in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= worth:
            return f"{size / worth:.1f} {unit}"
    return f"{size:.0f} bytes"


def try_writing(folder: Path) -> None:
    """Find out whether a folder can be written to; nothing stays of it.

    Raises:
        OSError: It cannot; names the folder.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:  # the temporary name means nothing to anybody
        raise OSError(error.errno, error.strerror, str(folder)) from error


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically, and the folders above it where they are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path.parent)
    try:
        temporary.write_bytes(content)
        _into_place(temporary, path)
    except OSError as error:  # the temporary name means nothing to anybody
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Write a folder of files atomically: yields a temporary folder, which becomes `path`.

    Where another process has made the folder first, theirs stays and ours is dropped.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path.parent)
    try:
        temporary.mkdir()
        yield temporary
        try:
            _into_place(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def leftovers(folder: Path) -> list[Path]:
    """The temporary files and folders directly in a folder whose writers are gone."""
    return [path for path in folder.glob(".writing-*") if _is_left_behind(path)]


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove these; returns which they were."""
    found = leftovers(folder)
    for path in found:
        with suppress(OSError):  # another process may be at it, too
            remove(path)
    return found


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing where there is none.

    Raises:
        OSError: It cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def host() -> str:
    """This machine's name, fit for the name of a file."""
    return re.sub(r"[^\w.]", "_", socket.gethostname())[:60]


def is_running(process: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, and is another user's
        return True
    return True


def _into_place(temporary: Path, path: Path) -> None:
    """Give a file or folder its name, when all of it is on the disk: power may fail, too."""
    within = sorted(temporary.iterdir()) if temporary.is_dir() else []
    for each in (*within, temporary):
        _sync(each)
    os.replace(temporary, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(folder: Path) -> Path:
    return folder / f".writing-{host()}-{os.getpid()}-{secrets.token_hex(4)}"


def _is_left_behind(path: Path) -> bool:
    name = _TEMPORARY.fullmatch(path.name)
    if name and name["host"] == host():
        return not is_running(int(name["process"]))
    with suppress(OSError):  # somebody else may just have removed it
        return time.time() - path.stat().st_mtime > SECONDS_UNTIL_STALE
    return False
