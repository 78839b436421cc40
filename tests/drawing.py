"""The axes of figures, as matplotlib has them before they become bytes."""

from collections.abc import Callable
from typing import TypeVar

import pytest
from matplotlib.figure import Figure

from swabench.analysis import figures

Found = TypeVar("Found")


def kept(draw: Callable[[], Found]) -> tuple[Found, list[Figure]]:
    """What a call returns, and the figures that it draws, without a pixel."""
    found: list[Figure] = []

    def keep(figure: Figure, *_: object) -> bytes:
        found.append(figure)
        return b""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "FORMATS", ("svg",))
        patch.setattr(figures, "render", keep)
        return draw(), found
