"""The figures of a study, drawn from records alone.

Which methods a figure shows follows from what they are (the first that averages over a cyclical
rate, the first with phases), never from their names. Colour, line and marker follow the table's
order, so that a method looks the same in every figure, in colour and in grey.

The same records give the same bytes: nothing here reads a clock or draws a random number.
"""

from collections.abc import Callable, Sequence

from swabench.analysis.figures.curves import average, phases
from swabench.analysis.figures.forest import forest
from swabench.analysis.figures.inputs import FigureInputs
from swabench.analysis.figures.landscape import flatness, line, plane
from swabench.analysis.figures.picture import FORMATS, CannotDrawError, Drawn, Picture
from swabench.analysis.figures.rates import rates
from swabench.analysis.figures.style import DPI, HEIGHT, WIDTH, plain_style, render
from swabench.analysis.figures.variance import variance
from swabench.analysis.frame import Records, collect
from swabench.analysis.surveys import surveys
from swabench.records import LandscapeRecord, RecordStore
from swabench.study.study import Study

__all__ = ["DPI", "FORMATS", "HEIGHT", "WIDTH", "Picture", "draw", "render"]


def draw(
    study: Study,
    store: RecordStore,
    seeds: Sequence[int],
    records: Records | None = None,
    landscape: Sequence[LandscapeRecord] | None = None,
) -> list[Picture]:
    """Draw every figure of a study.

    Args:
        study: The study.
        store: Its records.
        seeds: Which seeds.
        records: Those of all its runs, where they were read before.
        landscape: What was measured around their weights, likewise.

    Raises:
        InputError: There are no records at all, or some cannot be read.
    """
    everything = records or collect(study, store, seeds, study.run_names)
    if landscape is None:
        landscape = surveys(study, store, seeds, everything)
    inputs = FigureInputs(study, seeds, everything, landscape)
    drawers: dict[str, Callable[[FigureInputs], Drawn]] = {
        "figure1-average": average,
        "figure2-line": line,
        "figure3-phases": phases,
        "figure4-forest": forest,
        "figure5-plane": plane,
        "figure6-flatness": flatness,
        "figure7-rates": rates,
    }
    if study.one_source_at_a_time:  # a mean over its seeds would mix what they draw
        drawers = {"sources": variance}
    return [_picture(name, drawer, inputs) for name, drawer in drawers.items()]


def _picture(name: str, drawer: Callable[[FigureInputs], Drawn], inputs: FigureInputs) -> Picture:
    try:
        with plain_style():
            figure, caption, lacking, diverged = drawer(inputs)
    except CannotDrawError as reason:
        return Picture(name, "", {}, skipped=str(reason))
    if note := f"{lacking} {diverged}".strip():
        figure.supxlabel(note, fontsize=8, color="#a00000", wrap=True)
    content = {f: render(figure, f, caption, note) for f in FORMATS}
    return Picture(name, caption, content, note=note, lacking=lacking)
