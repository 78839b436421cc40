"""The feature cache: what is computed once, and shared by all studies that need it.

An entry lies in a folder named by a digest of everything that determines it, its key. It is written
atomically, and verified whenever it is read.

Another processor, device or number of threads rounds otherwise; the entry that is there first is
kept, and its own digest is part of every record that was made from it.
"""

import errno
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from swabench.records.status import Damage
from swabench.system.device import describe_device
from swabench.system.errors import InputError, SwabenchError, not_written
from swabench.system.files import new_folder, remove_leftovers, sha256_of_file, sha256_of_json

FEATURES, STATISTICS = HOMES = ("features", "statistics")
"""Folders of the cache: the frozen layers' outputs, and BatchNorm's statistics."""
_ARRAY = "features.safetensors"
_META = "features.json"
_MUST_NOT_BE_WRITTEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Features:
    """A tensor of the cache: the frozen layers' output for some images, or BatchNorm's statistics.

    Attributes:
        values: On the CPU. An output: first dimension N, in the study's precision.
        sha256: Digest of the cache entry's file, for records.
    """

    values: Tensor
    sha256: str


def cached(
    home: Path,
    key: Mapping[str, Any],
    compute: Callable[[], Tensor],
    device: torch.device,
    say: Callable[[str], None],
    keep: bool = True,
) -> Features:
    """A tensor from the cache, or computed into it by one process while the others wait.

    A cache that must not be written to, such as one that is shared, is read without a lock.

    Raises:
        InputError: The entry in the cache is not what it should be.
        SwabenchError: It cannot be written.
    """
    folder = home / _entry_name(key)
    elsewhere = "set SWABENCH_CACHE to a folder of yours"
    try:
        home.mkdir(parents=True, exist_ok=True)
        remove_leftovers(home)
        with _held(FileLock(folder.with_suffix(".lock")), say):
            if folder.exists():
                found = read_entry(folder, key)
                say(f"read from {folder}")
                return found
            _write_entry(folder, key, compute(), device)
            # Read again: where locks do not hold, another process may have been faster, and all
            # must work with the same numbers.
            found = read_entry(folder, key)
            for part in home.glob(f"{parts_of(key)}*"):
                shutil.rmtree(part, ignore_errors=True)
            if not keep:
                shutil.rmtree(folder)
            return found
    except SafetensorError as error:
        raise SwabenchError(f"{home}: cannot be written ({error}); {elsewhere}") from None
    except OSError as error:
        if error.errno in _MUST_NOT_BE_WRITTEN:
            with suppress(OSError):  # it may be that it must not be looked into either
                if folder.is_dir():
                    found = read_entry(folder, key)
                    say(f"read from {folder}")
                    return found
        raise not_written(error, home, elsewhere) from None


def parts_of(key: Mapping[str, Any]) -> str:
    """How the folders of an entry's parts begin."""
    return f".parts-{_entry_name(key)}-"


@contextmanager
def _held(lock: FileLock, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock; where another process has it, say so and wait."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("waiting for another process, which computes them")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def read_entry(folder: Path, key: Mapping[str, Any]) -> Features:
    """Read and verify a cache entry.

    Raises:
        InputError: It belongs to another key, or its bytes are not those that were written.
    """
    remedy = f"delete {folder} and run again"
    try:
        meta = json.loads((folder / _META).read_text())
        found = sha256_of_file(folder / _ARRAY)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: a damaged cache entry ({error}); {remedy}") from None
    if not isinstance(meta, dict) or meta.get("key") != key:
        raise InputError(f"{folder / _META}: the features of another key lie here; {remedy}")
    if found != meta.get("sha256"):
        raise InputError(
            f"{folder / _ARRAY}: altered or truncated, sha256 {found[:12]}… where "
            f"{str(meta.get('sha256'))[:12]}… was written; {remedy}"
        )
    return Features(load_file(folder / _ARRAY)["features"], found)


def damaged_entries(cache: Path) -> Iterator[Damage]:
    """Entries of a cache that are not as they were written; every byte is read."""
    for folder in sorted(path for home in HOMES for path in (cache / home).glob("[!.]*/")):
        try:
            key = json.loads((folder / _META).read_text())["key"]
            if _entry_name(key) != folder.name:
                raise InputError(f"{folder / _META}: altered, its key has another name")
            read_entry(folder, key)
        except (InputError, OSError, ValueError, KeyError, TypeError) as error:
            yield Damage(folder, str(error))


def _write_entry(
    folder: Path, key: Mapping[str, Any], features: Tensor, device: torch.device
) -> None:
    with new_folder(folder) as temporary:
        save_file({"features": features}, temporary / _ARRAY)
        meta = {
            "key": key,
            "sha256": sha256_of_file(temporary / _ARRAY),
            "device": describe_device(device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        (temporary / _META).write_text(json.dumps(meta, indent=2))
        # Safetensors writes for its owner alone; a cache may be shared.
        shutil.copymode(temporary / _META, temporary / _ARRAY)


def _entry_name(key: Mapping[str, Any]) -> str:
    return sha256_of_json(key)[:24]
