"""IDX files of unsigned bytes: the format of MNIST, and of a data set of the user's own."""

import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swabench.system.errors import InputError

LONGEST_HEADER = 20
"""Bytes of a header of four dimensions."""


def parse_idx(raw: bytes, where: Path) -> NDArray[np.uint8]:
    """A whole IDX file as an array (a read-only view of the bytes).

    Raises:
        InputError: As `idx_shape`; or there is a byte too few or too many.
    """
    shape = idx_shape(raw, where)
    announced = idx_length(shape)
    if len(raw) != announced:
        size = f"more than {announced:,}" if len(raw) > announced else f"{len(raw):,}"
        raise InputError(
            f"{where}: has {size} bytes where its header, sizes {shape}, announces {announced:,}"
        )
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def idx_shape(raw: bytes, where: Path) -> tuple[int, ...]:
    """The sizes that a header announces: (N,) of labels, (N, H, W[, C]) of images.

    A header is two zeros, the type 8, the number of dimensions, and their big-endian sizes.

    Args:
        raw: The file, or its beginning.
        where: Its path; the name says whether it must hold images.

    Raises:
        InputError: It is another type of file, its header is incomplete, it is empty, or its
            images have neither one channel nor three.
    """
    ranks = (3, 4) if "images" in where.name else (1,)
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
    if rank == 4 and shape[3] not in (1, 3):
        raise InputError(
            f"{where}: images of {shape[3]} channels (sizes {shape}); allowed are 1 (grey) or "
            "3 (colour)"
        )
    return shape


def idx_length(shape: tuple[int, ...]) -> int:
    """Bytes of an IDX file that holds an array of this shape."""
    return 4 + 4 * len(shape) + math.prod(shape)


def encode_idx(array: NDArray[np.uint8]) -> bytes:
    """The bytes of an IDX file that holds the array, of any shape."""
    magic = bytes((0, 0, 8, array.ndim))
    return magic + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
