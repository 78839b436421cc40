"""Small drawings in text: a learning rate over the epochs, for a terminal or a log."""

import numpy as np

from swabench.study.methods import Timeline

_BARS = " ▁▂▃▄▅▆▇█"


def draw_rate(timeline: Timeline, highest: float, epochs: int, width: int = 4) -> tuple[str, str]:
    """Draw a timeline: its rate as bars, and under it the captures (o) and restarts (|).

    Args:
        timeline: What to draw.
        highest: The rate that fills a whole cell, so that drawings can be compared.
        epochs: The timeline's length.
        width: Characters an epoch.

    Returns:
        Two lines of `epochs * width` characters.
    """
    cells = np.array_split(np.arange(len(timeline.rates)), epochs * width)
    bars = [
        _BARS[max(1, round(float(timeline.rates[cell].mean()) / highest * (len(_BARS) - 1)))]
        for cell in cells
    ]
    marks = [
        "|" if timeline.restarts[cell].any() else "o" if timeline.captures[cell].any() else " "
        for cell in cells
    ]
    return "".join(bars), "".join(marks)
