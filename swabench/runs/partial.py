"""Features that are being computed: what is done of them survives an interruption."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from swabench.system.files import sha256, write_file
from swabench.system.pausing import SAVE_EVERY

_BLOCK = re.compile(r"(\d+)-(\d+)-([0-9a-f]{64})\.safetensors")


class PartialFeatures:
    """Blocks of rows, each in a file that is named by its first and last row and its content.

    Args:
        folder: Where they are kept; another one for whatever rounds otherwise.
        save_every: Seconds from one block to the next, at least.
        clock: Tells seconds that never go back.
    """

    def __init__(
        self,
        folder: Path,
        save_every: float = SAVE_EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._save_every = save_every
        self._clock = clock
        self._kept_at = clock()
        self._kept = 0

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """The blocks from the first row on that are there and whole, each with its first row."""
        found = (_BLOCK.fullmatch(path.name) for path in self._folder.glob("*.safetensors"))
        names = {int(name[1]): name for name in found if name}
        while name := names.get(self._kept):
            content = (self._folder / name[0]).read_bytes()
            if sha256(content) != name[3]:
                break  # computed anew, as all that follow
            self._kept = int(name[2])
            yield int(name[1]), load(content)["rows"]

    def keep_if_due(self, rows: Tensor, done: int) -> None:
        """Keep what is done, where the last block is old enough.

        Args:
            rows: All rows, first dimension N.
            done: How many of them are computed.
        """
        if self._clock() - self._kept_at < self._save_every or done == len(rows):
            return
        content = save({"rows": rows[self._kept : done].contiguous()})
        self._kept_at = self._clock()
        # A convenience, which must not take the room that the whole will need.
        with suppress(OSError):
            if shutil.disk_usage(self._folder.parent).free > rows.nbytes + len(content):
                name = f"{self._kept}-{done}-{sha256(content)}.safetensors"
                write_file(self._folder / name, content)
                self._kept = done
