"""The command line: parse, call, print. The work is done elsewhere."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Never

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from swabench import __version__
from swabench.data.datasets import load_dataset, user_cache
from swabench.records import RecordStore
from swabench.study.drawing import draw_rate
from swabench.study.loading import bundled_studies, load_study
from swabench.study.study import MOST_SEEDS, Study
from swabench.study.trajectories import trajectories
from swabench.system.errors import DivergedError, InputError, SwabenchError
from swabench.system.progress import LineProgress, Progress, TerminalProgress

# torch, pandas and matplotlib take seconds to import; only the commands that use them pay.
if TYPE_CHECKING:
    import pandas as pd
    import torch

    from swabench.analysis.publish import Publication, Published
    from swabench.runs.experiment import Experiment

out = Console()
err = Console(stderr=True)

INTERRUPTED = 130


class Commands(TyperGroup):
    """Turns our own errors into words and exit codes; other errors are bugs and keep theirs."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except SwabenchError as error:
            _stop(f"error: {error}", error.exit_code)
        except KeyboardInterrupt:
            _stop("interrupted: finished runs are kept, the same command goes on", INTERRUPTED)


def _stop(message: str, code: int) -> Never:
    err.print(message, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "Does averaging weights help here, and by how much?\n\n"
        "Pretrains ResNet-50 by Adam, fine-tunes it by SGD, SWA and Periodic SWA on the same "
        "minibatches, and compares them over seeds. A study is one YAML file; "
        f"bundled are {', '.join(bundled_studies())}.\n\n"
        "Start with: [bold]swabench reproduce --config smoke[/bold]"
    ),
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted.",
)

ConfigOption = Annotated[
    str,
    typer.Option("--config", "-c", help="A study: a YAML file, or the name of a bundled one."),
]
ResultsOption = Annotated[
    Path, typer.Option("--results", "-r", help="Folder for records, tables and manifests.")
]
SeedsOption = Annotated[
    str | None,
    typer.Option(
        "--seeds", "-s", help="Instead of the study's: a number of seeds (5), or seeds (0,3,7-9)."
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", "-d", help="auto, cpu, cuda or mps; auto takes a GPU if any.")
]
MethodOption = Annotated[
    list[str], typer.Option("--method", "-m", help="A method of the study, or all; repeatable.")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        "-t",
        min=1,
        help="Processor threads to compute with; by default all cores. Another number rounds "
        "otherwise.",
    ),
]
DEFAULT_RESULTS = Path("results")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.command()
def data(config: ConfigOption = "mnist") -> None:
    """Find or fetch the study's data, verify every byte, and say where it came from."""
    study = load_study(config)
    progress = _progress()
    dataset = load_dataset(study.data.dataset, study.data.folder, user_cache(), progress.say)
    _say(
        f"{dataset.name}: {len(dataset.train_labels)} training and {len(dataset.test_labels)} test "
        f"images, {dataset.classes} classes, from {dataset.source}"
    )
    for name, digest in sorted(dataset.digests.items()):
        _say(f"  {name}  sha256 {digest}")


@app.command()
def pretrain(
    config: ConfigOption = "mnist",
    results: ResultsOption = DEFAULT_RESULTS,
    seeds: SeedsOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Train what every method starts from (the paper: Adam), once a seed."""
    study, chosen = _study(config, seeds)
    done = _experiment(study, results, device, threads).pretrain(chosen)
    _say(f"pretraining: {done} seeds trained, {len(chosen) - done} were there already")


@app.command()
def finetune(
    method: MethodOption,
    config: ConfigOption = "mnist",
    results: ResultsOption = DEFAULT_RESULTS,
    seeds: SeedsOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Fine-tune by one or several methods; pretrains first where that is missing.

    Final layers of one seed train together, since that costs little more than one of them: all
    of a seed's runs are recorded then.

    Example: swabench finetune --method swa --method sgd --seeds 3
    """
    study, chosen = _study(config, seeds)
    methods = study.select_methods(method)
    experiment = _experiment(study, results, device, threads)
    asked = len(methods) * len(chosen)
    missing = len(experiment.store.missing(methods, chosen))
    done = experiment.finetune(methods, chosen)
    beside = f" (and {done - missing} that train together with them)" if done > missing else ""
    _say(f"fine-tuning: {missing} runs done{beside}, {asked - missing} were there already")


@app.command()
def landscape(
    config: ConfigOption = "mnist",
    results: ResultsOption = DEFAULT_RESULTS,
    seeds: SeedsOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Measure the loss around the final weights: lines, plane, rays, sharpness, Hessian."""
    study, chosen = _study(config, seeds)
    experiment = _experiment(study, results, device, threads)
    done = experiment.survey(chosen)
    _say(f"landscape: {done} parts measured, the others were there already")
    _print(_publication(study, experiment.store, chosen).landscape(), experiment.store)


@app.command()
def table(
    config: ConfigOption = "mnist",
    results: ResultsOption = DEFAULT_RESULTS,
    seeds: SeedsOption = None,
) -> None:
    """Write the comparison table (CSV, Markdown, LaTeX) and the manifest, from records alone."""
    _publish(lambda publication: publication.table(), config, results, seeds)


@app.command()
def figures(
    config: ConfigOption = "mnist",
    results: ResultsOption = DEFAULT_RESULTS,
    seeds: SeedsOption = None,
) -> None:
    """Draw the figures (PNG and SVG), from records alone."""
    _publish(lambda publication: publication.figures(), config, results, seeds)


@app.command()
def claims(
    config: ConfigOption = "mnist",
    results: ResultsOption = DEFAULT_RESULTS,
    seeds: SeedsOption = None,
) -> None:
    """Decide the paper's claims by the study's rules, from records alone."""
    _publish(lambda publication: publication.claims(), config, results, seeds)


@app.command()
def report(
    config: ConfigOption = "mnist",
    results: ResultsOption = DEFAULT_RESULTS,
    seeds: SeedsOption = None,
) -> None:
    """Write report.html: table, figures, claims, settings and manifest on one page."""
    _publish(lambda publication: publication.report(), config, results, seeds)


@app.command()
def reproduce(
    config: ConfigOption = "mnist",
    results: ResultsOption = DEFAULT_RESULTS,
    seeds: SeedsOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Do all of it: data, every run, landscape, table, figures, claims, report.

    Skips what is done.
    """
    from swabench.landscape.survey import unsurveyable

    study, chosen = _study(config, seeds)
    experiment = _experiment(study, results, device, threads)
    experiment.pretrain(chosen)
    problems = []
    try:
        experiment.finetune(list(study.all_methods), chosen)
    except DivergedError as error:
        problems.append(str(error))
    store = experiment.store
    published = _publication(study, store, chosen)
    problems.append(_print(published.table(), store))
    if reason := unsurveyable(study, store, chosen):
        _say(f"landscape: not measured, for {reason}")
    else:
        try:
            experiment.survey(chosen)
        except SwabenchError as error:
            problems.append(str(error))
    problems.append(_print(published.landscape(), store))
    problems.append(_print(published.figures(), store))
    problems.append(_print(published.claims(), store))
    problems.append(_print(published.report(), store))
    if told := dict.fromkeys(problem for problem in problems if problem):
        raise SwabenchError("\n".join(told))
    if study.finetune.trainable == "head":
        _suggest_network_study(device)


@app.command()
def export(
    method: Annotated[str, typer.Option("--method", "-m", help="A row of the study's table.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A file to write: .safetensors or .pth.")
    ],
    seed: Annotated[int, typer.Option("--seed", help="Which seed's run.")] = 0,
    config: ConfigOption = "mnist",
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Write a run's weights for a plain torchvision resnet50, by load_state_dict.

    Example: swabench export --method swa --seed 0 --output swa.safetensors
    """
    from swabench.runs.export import check_output, write_state

    study = load_study(config)
    check_output(output)
    experiment = _experiment(study, results, device, threads)
    state = experiment.export(method, seed)
    write_state(state, output)
    mean, deviation = experiment.normalization()
    _say(f"{output}: {method} at seed {seed}, {len(state['fc.bias'])} classes")
    _say(
        f"  takes images scaled to [0, 1], resized to {study.data.image_size} pixels, normalised "
        f"by mean {_numbers(mean)} and deviation {_numbers(deviation)}, as three channels"
    )


@app.command()
def methods(config: ConfigOption = "mnist") -> None:
    """Show each method of a study: its learning rate over the epochs, and its averaging plan."""
    study = load_study(config)
    epochs, steps = study.finetune.epochs, 100
    timelines = {name: m.timeline(epochs, steps) for name, m in study.methods.items()}
    highest = max(float(timeline.rates.max()) for timeline in timelines.values())
    _say(
        f"{study.title}: {epochs} epochs of fine-tuning after {study.pretrain.epochs} of "
        f"{study.pretrain.name}. Bars: the rate, a full cell is {highest:g}; "
        "o: capture, |: restart from the average."
    )
    paths = trajectories(study.methods)
    _say(f"{len(study.methods)} rows on {len(paths)} trajectories, each trained once a seed.")
    width = max(1, min(4, (out.width - 2) // epochs))
    for name, method in study.methods.items():
        plan = method.averaging.describe() if method.averaging else "no averaging"
        _say(f"\n{name} ({method.title})\n  rate {method.rate.describe()}; {plan}")
        for line in draw_rate(timelines[name], highest, epochs, width):
            if line.strip():
                _say(f"  {line}")


@app.command()
def validate(
    config: ConfigOption = "mnist",
    results: ResultsOption = DEFAULT_RESULTS,
    seeds: SeedsOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Check a study without running it: what it would run, and about how long that takes."""
    from swabench.system.device import choose_device, use_threads

    study, chosen = _study(config, seeds)
    target = choose_device(device)
    use_threads(threads)
    store = RecordStore(results, study)
    runs = list(study.run_names)
    missing = store.missing(runs, chosen)
    _say(f"{study.name}: {study.title}: the study is valid")
    _say(
        f"  trains      {study.pretrain.trainable} by {study.pretrain.name} "
        f"({study.pretrain.epochs} epochs), then {study.finetune.trainable} "
        f"({study.finetune.epochs} epochs, batch {study.finetune.batch_size})"
    )
    _say(f"  rows        {', '.join(study.row_names)}")
    if study.rate_sweep:
        _say(f"  rate sweep  {', '.join(runs[len(study.row_names) :])}")
    paths = len(trajectories(study.all_methods))
    _say(f"  fine-tunes  {len(study.all_methods)} runs a seed, on {paths} trajectories")
    _say(f"  seeds       {', '.join(map(str, chosen))}")
    _say(f"  runs        {len(missing)} to do, {len(runs) * len(chosen) - len(missing)} done")
    if missing:
        _say(f"  time        {_time(study, missing, target)}")


def _time(study: Study, missing: Sequence[tuple[str, int]], device: "torch.device") -> str:
    """About how long the missing runs take, in words; or why nobody can say."""
    from swabench.runs.estimate import estimate

    try:
        cost = estimate(study, missing, device)
    except InputError:
        raise
    except SwabenchError as error:
        return f"the time cannot be estimated: {error}"
    frozen = f"{_duration(cost.features_seconds)} for the frozen layers (nothing if cached) and "
    return (
        f"about {frozen if cost.features_seconds else ''}{_duration(cost.training_seconds)} of "
        f"training on {device.type}, from a probe of a few steps"
    )


def _suggest_network_study(device: str) -> None:
    """Where there is a GPU, training the whole network is the natural next step."""
    from swabench.runs.estimate import estimate
    from swabench.system.device import choose_device

    target = choose_device(device)
    if target.type != "cuda":
        return
    what = "next, on this GPU: `swabench reproduce --config network` fine-tunes all of ResNet-50"
    try:
        study = load_study("network")
        cost = estimate(study, [(m, s) for m in study.run_names for s in study.seeds], target)
    except Exception as error:  # a study is finished: no hint's failure may end the command
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        _say(f"{what}; the time cannot be estimated: {reason}")
    else:
        _say(f"{what}, in about {_duration(cost.training_seconds)} by a probe of a few steps")


def _study(config: str, seeds: str | None) -> tuple[Study, list[int]]:
    study = load_study(config)
    return study, list(study.seeds) if seeds is None else _seeds(seeds)


def _seeds(text: str) -> list[int]:
    try:
        if text.strip().isdecimal():
            spans = [range(int(text))]
        else:
            ends = [part.split("-") for part in text.split(",")]
            spans = [range(int(span[0]), int(span[-1]) + 1) for span in ends if len(span) <= 2]
            spans = spans if len(spans) == len(ends) else []
    except ValueError:
        spans = []
    many = sum(len(span) for span in spans) > MOST_SEEDS
    found = [] if many else [seed for span in spans for seed in span]
    if not found or len(set(found)) < len(found):
        raise InputError(f"--seeds: {text!r}; give a number of seeds (5) or seeds (0,3,7-9)")
    return found


def _experiment(study: Study, results: Path, device: str, threads: int | None) -> "Experiment":
    from swabench.runs.experiment import Experiment
    from swabench.system.device import choose_device, use_threads

    use_threads(threads)
    return Experiment(study, results, choose_device(device), user_cache(), _progress())


def _publication(study: Study, store: RecordStore, seeds: list[int]) -> "Publication":
    from swabench.analysis.publish import Publication

    return Publication(study, store, seeds)


def _progress() -> Progress:
    if err.is_terminal:
        return TerminalProgress(err)
    return LineProgress(lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6f}" for value in values)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _publish(
    document: "Callable[[Publication], Published]", config: str, results: Path, seeds: str | None
) -> None:
    """Write one document; what is missing ends in an error, after all else is told."""
    study, chosen = _study(config, seeds)
    store = RecordStore.to_read(results, study)
    if lacking := _print(document(_publication(study, store, chosen)), store):
        raise SwabenchError(lacking)


def _print(published: "Published", store: RecordStore) -> str:
    """Print what was written; returns what is missing."""
    if published.shown is not None:
        _print_table(published.title, published.shown)
    for line in published.notes:
        _say(line)
    if published.files:
        _say(f"written to {store.folder}: {', '.join(published.files)}")
    return published.lacking


def _print_table(title: str, shown: "pd.DataFrame") -> None:
    """Print a table; columns whose entries begin with a letter are words, the others numbers."""
    drawn = Table(title=Text(title), title_justify="left")
    for column in shown.columns:
        words = str(shown[column].iloc[0])[:1].isalpha()
        drawn.add_column(Text(str(column)), justify="left" if words else "right")
    for row in shown.astype(str).itertuples(index=False):
        drawn.add_row(*(Text(cell) for cell in row))
    # A log has no width to fold to: there the table keeps its own.
    Console(width=None if out.is_terminal else 160).print(drawn)


def main() -> None:
    """Entry point of the `swabench` command."""
    app()
