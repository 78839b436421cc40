"""Figures 1 and 3: measurements over the epochs."""

from typing import Any

from swabench.analysis.figures.inputs import FigureInputs
from swabench.analysis.figures.picture import Drawn
from swabench.analysis.figures.pieces import legend, new_figure, spread, spread_words, whole_epochs
from swabench.analysis.figures.style import ITERATE
from swabench.study.methods import Method
from swabench.study.settings import what_results_depend_on

ENDS = "means end where the first seed did"


def average(inputs: FigureInputs) -> Drawn:
    """Figure 1: the cyclical iterate and its average over the epochs."""
    name = inputs.averaging(cyclical=True)
    figure, axes = new_figure(1, 2)
    for ax, (measure, label) in zip(
        axes, {"accuracy": "Test accuracy (%)", "loss": "Test loss (nats)"}.items(), strict=True
    ):
        iterate = inputs.curves(name, "iterate", measure)
        average = inputs.curves(name, "average", measure)
        spread(ax, iterate, ITERATE, inputs.label(name, "iterate"))
        spread(ax, average, inputs.style(name), inputs.label(name, "average"))
        ax.set(ylabel=label, xlabel="Epoch of fine-tuning")
        whole_epochs(ax)
    legend(figure, axes[0], columns=2)
    seeds = iterate.shape[1]
    caption = (
        f"Test accuracy and loss of the iterate of {name} and of its average after "
        f"{_spacing(inputs)}: {spread_words(seeds)}."
    )
    return Drawn(figure, caption, inputs.lacking([name]), inputs.diverged([name], ENDS))


def phases(inputs: FigureInputs) -> Drawn:
    """Figure 3: SWA, PSWA and its iterate over the epochs, phases marked."""
    periodic, single = inputs.periodic(), inputs.averaging(cyclical=False)
    methods = inputs.study.methods
    alike = _without_phases(methods[periodic])
    for name in reversed(inputs.study.averaging_methods):
        plan = methods[name].averaging
        if plan and plan.phases == 1 and _without_phases(methods[name]) == alike:
            single = name  # the same but for the phases
    figure, (ax,) = new_figure(1, 1)
    iterate = inputs.curves(periodic, "iterate", "accuracy")
    spread(ax, iterate, ITERATE, inputs.label(periodic, "iterate"))
    for name in (single, periodic):
        curves = inputs.curves(name, "average", "accuracy")
        spread(ax, curves, inputs.style(name), inputs.label(name, "average"))
    plan = methods[periodic].averaging
    phases, epochs = plan.phases if plan else 1, inputs.study.finetune.epochs
    for k in range(phases):
        if k:
            ax.axvline(k * epochs / phases + 0.5, color="#444444", linewidth=0.8, linestyle=":")
        ax.text(
            (k + 0.5) * epochs / phases + 0.5,
            1.0,
            f"phase {k + 1}",
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="bottom",
        )
    ax.set(xlabel="Epoch of fine-tuning", ylabel="Test accuracy (%)", xlim=(0.5, epochs + 0.5))
    whole_epochs(ax)
    legend(figure, ax, columns=3)
    caption = (
        f"Test accuracy after {_spacing(inputs)} of {single} and {periodic} (averages) and of the "
        f"iterate of {periodic}, which restarts from the average at each dotted line: "
        f"{spread_words(iterate.shape[1])}."
    )
    shown = [single, periodic]
    return Drawn(figure, caption, inputs.lacking(shown), inputs.diverged(shown, ENDS))


def _without_phases(method: Method) -> dict[str, Any]:
    """What a method's results depend on, but for its phases."""
    plan = method.averaging
    single = plan.model_copy(update={"phases": 1}) if plan else None
    return what_results_depend_on(method.model_copy(update={"averaging": single}))


def _spacing(inputs: FigureInputs) -> str:
    """After which epochs the curves have a point, in words."""
    every = inputs.study.finetune.score_every_epochs
    return "every epoch" if every == 1 else f"every {every} epochs"
