"""The files of a data set: found in a folder, unpacked in memory, verified.

Each file is read once; the bytes that were verified are the bytes that are decoded.
"""

import gzip
import hashlib
import zlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from swabench.data.idx import LONGEST_HEADER, idx_length, idx_shape
from swabench.study.published import KnownDataset, PublishedFile
from swabench.system.errors import InputError

BLOCK = 1 << 20


class RawFile(NamedTuple):
    """A file's place and its uncompressed bytes."""

    path: Path
    raw: bytes


def read_files(known: KnownDataset, folder: Path) -> dict[str, RawFile]:
    """The files of a data set, what is published of them verified; raises as the next two."""
    return {file: read_file(known, file, path) for file, path in find_files(known, folder).items()}


def find_files(known: KnownDataset, folder: Path) -> dict[str, Path]:
    """Where the files of a data set lie, plain or as .gz: in the folder or where torchvision does.

    Raises:
        InputError: There is no such folder, or a file is missing; names it.
        OSError: The folder cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder")
    parts = PurePosixPath(known.folder).parts
    # The user may name torchvision's root or a folder below it.
    for place in [folder.joinpath(*parts[start:]) for start in range(len(parts), -1, -1)]:
        # Of a plain file and its .gz the plain one, named last, is taken.
        present = {
            file: path
            for file in known.files
            for path in (place / f"{file}.gz", place / file)
            if path.is_file()
        }
        missing = [file for file in known.files if file not in present]
        if present and missing:
            raise InputError(f"{place}: {', '.join(missing)} missing")
        if present:
            return present
    raise InputError(f"{folder}: contains none of {', '.join(known.files)}, plain or as .gz")


def read_file(known: KnownDataset, file: str, path: Path) -> RawFile:
    """One file of a data set, verified where something is published of it.

    Raises:
        InputError: It is damaged, not an IDX file, or not the published one; names it.
        OSError: It cannot be read.
    """
    published = known.files[file]
    size = published.size if published else idx_length(read_idx_shape(path))
    # One byte more, so that a file that is too long is seen.
    raw = _read(path, size + 1)
    if published:
        _verify(raw, published, path, known.title)
    return RawFile(path, raw)


def read_idx_shape(path: Path) -> tuple[int, ...]:
    """The sizes in an IDX file's header; what follows it is not read. Raises as `read_file`."""
    return idx_shape(_read(path, LONGEST_HEADER), path)


def _read(path: Path, most: int) -> bytes:
    """The first `most` uncompressed bytes: a small archive may unpack to more than memory holds."""
    blocks = []
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            # In blocks, because a stream allocates what it is asked for before it reads.
            while block := stream.read(min(BLOCK, most)):
                blocks.append(block)
                most -= len(block)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged as a gzip file ({error})") from error
    return b"".join(blocks)


def _verify(raw: bytes, published: PublishedFile, path: Path, title: str) -> None:
    if len(raw) > published.size:
        raise InputError(f"{path}: has more than the {published.size:,} bytes of {title}")
    algorithm = "md5" if len(published.digest) == 32 else "sha256"
    digest = hashlib.new(algorithm, raw, usedforsecurity=False).hexdigest()
    if digest != published.digest:
        raise InputError(
            f"{path}: {len(raw):,} bytes with {algorithm} {digest[:12]}… where {title} has "
            f"{published.size:,} with {published.digest[:12]}…"
        )
