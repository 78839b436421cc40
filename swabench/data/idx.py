"""IDX files of unsigned bytes: the format of MNIST, and of a data set of the user's own."""

import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swabench.system.errors import InputError

LONGEST_HEADER = 20
"""Bytes of a header of four dimensions."""


def idx_ranks(file: str) -> tuple[int, ...]:
    """The numbers of dimensions that one of the four files of a data set may have."""
    return (3, 4) if "images" in file else (1,)


def parse_idx(raw: bytes, where: Path, ranks: tuple[int, ...]) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes as an array (a read-only view of the bytes).

    Args:
        raw: The whole file: two zeros, the type 8, the rank, the big-endian sizes, the values.
        where: The file, for messages.
        ranks: The numbers of dimensions that are allowed.

    Raises:
        InputError: Another magic number, another rank, a size of zero, a byte too few or too many.
    """
    shape = idx_shape(raw, where, ranks)
    announced = idx_length(shape)
    if len(raw) != announced:
        size = f"more than {announced:,}" if len(raw) > announced else f"{len(raw):,}"
        raise InputError(
            f"{where}: has {size} bytes where its header, sizes {shape}, announces {announced:,}"
        )
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def idx_shape(raw: bytes, where: Path, ranks: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes that an IDX file's header announces; `raw` may end after the header.

    Raises:
        InputError: Another magic number, another rank, an incomplete header, a size of zero.
    """
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or raw[3] not in ranks:
        raise InputError(
            f"{where}: begins with {raw[:4].hex(' ') or 'nothing'}, where an IDX file of unsigned "
            f"bytes in {' or '.join(map(str, ranks))} dimensions has 00 00 08 {ranks[0]:02x}"
        )
    rank = raw[3]
    if len(raw) < 4 + 4 * rank:
        raise InputError(f"{where}: has {len(raw)} bytes where its header has {4 + 4 * rank}")
    shape: tuple[int, ...] = struct.unpack_from(f">{rank}I", raw, 4)
    if 0 in shape:
        raise InputError(f"{where}: is empty (sizes {shape})")
    return shape


def idx_length(shape: tuple[int, ...]) -> int:
    """Bytes of an IDX file that holds an array of this shape."""
    return 4 + 4 * len(shape) + math.prod(shape)


def image_shape(shape: tuple[int, ...], where: Path) -> tuple[int, int, int]:
    """Channels, height and width of the images of an IDX file of shape (N, H, W[, C]).

    Raises:
        InputError: Neither one channel nor three.
    """
    _, height, width, channels = (*shape, 1)[:4]
    if channels not in (1, 3):
        raise InputError(
            f"{where}: images of {channels} channels (sizes {shape}); allowed are 1 (grey) or "
            "3 (colour)"
        )
    return channels, height, width


def encode_idx(array: NDArray[np.uint8]) -> bytes:
    """The bytes of an IDX file that holds the array, of any shape."""
    magic = bytes((0, 0, 8, array.ndim))
    return magic + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
