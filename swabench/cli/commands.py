"""The commands. Each parses, calls what does the work, and prints what came of it."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from swabench import __version__
from swabench.cli import plan, tuning
from swabench.cli.options import (
    DEFAULT_RESULTS,
    PAUSE,
    Asked,
    AskedWork,
    ConfigOption,
    DeviceOption,
    JsonOption,
    MethodOption,
    QuietOption,
    ResultsOption,
    SaveEveryOption,
    StopAfterOption,
    ThreadsOption,
    with_options,
)
from swabench.cli.printing import (
    err,
    numbers,
    out,
    print_table,
    progress,
    say,
    say_json,
    stop,
)
from swabench.cli.streams import tolerant_streams
from swabench.study.drawing import draw_rate
from swabench.study.loading import bundled_studies, load_study
from swabench.study.study import Study
from swabench.study.trajectories import trajectories
from swabench.system.errors import DivergedError, SwabenchError, not_usable
from swabench.system.pausing import INTERRUPTED, Interrupted

# torch, pandas and matplotlib take seconds to import; only the commands that use them pay.
if TYPE_CHECKING:
    from swabench.analysis.publish import Publication, Published
    from swabench.records import RecordStore


class Commands(TyperGroup):
    """Turns our own errors into words and exit codes; other errors are bugs and keep theirs."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            with PAUSE.listening():
                return super().invoke(ctx)
        except SwabenchError as error:
            stop(f"error: {error}", error.exit_code)
        except OSError as error:  # of a file that no message of ours is about
            told = not_usable(error)
            stop(f"error: {told}", told.exit_code)
        except KeyboardInterrupt as error:
            code = error.exit_code if isinstance(error, Interrupted) else INTERRUPTED
            reason = str(error) or "interrupted"
            stop(f"{reason}: what is done is kept; the same command resumes", code)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "Does averaging weights help here, and by how much?\n\n"
        "Pretrains ResNet-50 by Adam, fine-tunes it by SGD, SWA and Periodic SWA on the same "
        "minibatches, and compares them over seeds. A study is one YAML file; "
        f"bundled are {', '.join(bundled_studies())}.\n\n"
        "Start with: [bold]swabench reproduce --config smoke[/bold]"
    ),
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted, 143 ended "
    "(SIGTERM). What was interrupted goes on by the same command.",
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.command()
def data(config: ConfigOption = "mnist", quiet: QuietOption = False) -> None:
    """Find or fetch the study's data, verify every byte, and print its source and digests."""
    from swabench.data.datasets import load_dataset, user_cache

    study = load_study(config)
    report_fetching = progress(quiet).say
    dataset = load_dataset(study.data.dataset, study.data.folder, user_cache(), report_fetching)
    say(
        f"{dataset.name}: {len(dataset.train_labels)} training and {len(dataset.test_labels)} test "
        f"images, {dataset.classes} classes, from {dataset.source}"
    )
    for name, digest in sorted(dataset.digests.items()):
        say(f"  {name}  sha256 {digest}")


@app.command()
@with_options
def pretrain(asked: AskedWork) -> None:
    """Pretrain the weights that every method starts from (the paper: Adam), once per seed."""
    study, chosen = asked.study()
    experiment = asked.experiment(study)
    done = experiment.pretrain(chosen)
    say(f"pretraining: {done} seeds trained, {len(chosen) - done} already done")
    _say_diverged(experiment.store, [study.pretrain.name], chosen)


@app.command()
@with_options
def finetune(asked: AskedWork, method: MethodOption) -> None:
    """Fine-tune by one or several methods; pretraining runs first if it is missing.

    Final layers of one seed train together at little more than the cost of one, so all of that
    seed's runs are recorded.

    Example: swabench finetune --method swa --method sgd --seeds 3
    """
    study, chosen = asked.study()
    methods = study.select_methods(method)
    experiment = asked.experiment(study)
    wanted = len(methods) * len(chosen)
    missing = len(experiment.store.missing(methods, chosen))
    done = experiment.finetune(methods, chosen)
    beside = f" (and {done - missing} that train together with them)" if done > missing else ""
    say(f"fine-tuning: {missing} runs done{beside}, {wanted - missing} already done")
    _say_diverged(experiment.store, methods, chosen)


@app.command()
def tune(
    config: ConfigOption = "mnist-tuned",
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    save_every: SaveEveryOption = "2m",
    stop_after: StopAfterOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Choose each method's settings by validation loss, with equally many trials a method.

    The study's section `tuning` has a grid for each method and seeds of its own; the test images
    are not looked at. What is chosen goes to choices.yaml in the study's results, and the study
    runs with it as long as its grids, and all that its trials share, stay the same.

    Example: swabench tune --config mnist-tuned
    """
    asked = AskedWork(
        config,
        results,
        device=device,
        threads=threads,
        save_every=save_every,
        stop_after=stop_after,
        quiet=quiet,
    )
    study, _ = asked.as_written()
    published, store = tuning.carry_out(asked, study, json)
    _show(published, store, json)
    if problem := tuning.not_allowed_of_trials(study, store):
        raise DivergedError(problem)


@app.command()
@with_options
def landscape(asked: AskedWork) -> None:
    """Measure the loss around the final weights: lines, plane, rays, sharpness, Hessian."""
    study, chosen = asked.study()
    experiment = asked.experiment(study)
    done = experiment.survey(chosen)
    say(f"landscape: {done} parts measured, the others already done")
    _print(_publication(study, experiment.store, chosen).landscape(), experiment.store)


@app.command()
@with_options
def table(asked: Asked, json: JsonOption = False) -> None:
    """Write the comparison table (CSV, Markdown, LaTeX) and the manifest, from records alone."""
    _publish(lambda publication: publication.table(), asked, json)


@app.command()
@with_options
def figures(asked: Asked) -> None:
    """Draw the figures (PNG and SVG), from records alone."""
    _publish(lambda publication: publication.figures(), asked)


@app.command()
@with_options
def claims(asked: Asked, json: JsonOption = False) -> None:
    """Decide the paper's claims by the study's rules, from records alone."""
    _publish(lambda publication: publication.claims(), asked, json)


@app.command()
@with_options
def report(asked: Asked) -> None:
    """Write report.html: table, figures, claims, settings and manifest on one page."""
    _publish(lambda publication: publication.report(), asked)


@app.command()
@with_options
def reproduce(asked: AskedWork) -> None:
    """Run everything: data, all runs, landscape, table, figures, claims, report.

    Finished runs are skipped, so interrupted studies resume. A study with a section `tuning` is
    tuned first, unless that is done. Runs that diverge are recorded and shown so; the command then
    fails in the end, unless the study says `diverged: record`.
    """
    from swabench.landscape.parts import unsurveyable

    written, chosen = asked.as_written()
    study = asked.tuned(written) or _tuned_now(asked, written)
    experiment = asked.experiment(study)
    if "backbone" not in study.seed_draws:  # else backbone by backbone, with what follows
        with suppress(DivergedError):  # fine-tuning says it, too, and what cannot start
            experiment.pretrain(chosen)
    problems = [tuning.not_allowed_of_trials(study, experiment.store)]
    try:
        experiment.finetune(list(study.all_methods), chosen)
    except DivergedError as error:
        problems.append(str(error))
    store = experiment.store
    published = _publication(study, store, chosen)
    problems.append(_print(published.table(), store))
    if reason := unsurveyable(study, store, chosen):
        say(f"landscape: not measured: {reason}")
    else:
        try:
            experiment.survey(chosen)
        except SwabenchError as error:
            problems.append(str(error))
    problems.append(_print(published.landscape(), store))
    problems.append(_print(published.figures(), store))
    problems.append(_print(published.claims(), store))
    problems.append(_print(published.report(), store))
    if found := dict.fromkeys(problem for problem in problems if problem):
        raise SwabenchError("\n".join(found))
    for line in plan.next_studies(study, asked.device):
        say(line)


@app.command()
@with_options
def status(asked: Asked, json: JsonOption = False) -> None:
    """Show what a study has: runs done, diverged, under way, interrupted, missing, damaged."""
    from swabench.cli import status as state

    written, chosen = asked.as_written()
    found = state.status_of(asked.results, asked.tuned(written) or written, chosen)
    if json:
        say_json(found)
        return
    print_table(f"{written.title}: runs of {len(chosen)} seeds", state.as_table(found))
    for line in state.in_words(found):
        say(line)


@app.command()
def repair(
    config: ConfigOption = "mnist",
    results: ResultsOption = DEFAULT_RESULTS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only name what would be removed.")
    ] = False,
) -> None:
    """Remove what is damaged, and temporary files left behind, so that it is made anew.

    Every byte of a study's records and of the feature cache is read. Each path is named before it
    is removed; nothing that is whole is touched.
    """
    from swabench.data.datasets import user_cache
    from swabench.records.status import damages, stale_files
    from swabench.runs.features import damaged_entries
    from swabench.system.files import remove

    folder = results / load_study(config).name
    verb = "would remove" if dry_run else "removing"
    found = [*damages(folder), *damaged_entries(user_cache())]
    for damage in found:
        say(f"{verb} {damage.path}: {damage.reason}")
    stale = [path for each in (folder, user_cache()) for path in stale_files(each)]
    for path in stale:
        say(f"{verb} {path}: left behind by a process that is gone")
    if not dry_run:
        for path in (*(damage.path for damage in found), *stale):
            remove(path)
    say(f"repair: {len(found)} damaged, {len(stale)} left behind")


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
    quiet: QuietOption = False,
) -> None:
    """Write a run's weights for a plain torchvision resnet50, by load_state_dict.

    Example: swabench export --method swa --seed 0 --output swa.safetensors
    """
    from swabench.runs.export import check_output, write_state

    asked = AskedWork(config, results, device=device, threads=threads, quiet=quiet)
    study, _ = asked.study()
    check_output(output)
    experiment = asked.experiment(study)
    state = experiment.export(method, seed)
    write_state(state, output)
    mean, deviation = experiment.normalization()
    say(f"{output}: {method} at seed {seed}, {len(state['fc.bias'])} classes")
    say(
        f"  takes images scaled to [0, 1], resized to {study.data.image_size} pixels, normalised "
        f"by mean {numbers(mean)} and deviation {numbers(deviation)}, as three channels"
    )


@app.command()
def methods(config: ConfigOption = "mnist") -> None:
    """Show each method of a study: its learning rate over the epochs, and its averaging plan."""
    study = load_study(config)
    epochs, steps = study.finetune.epochs, 100
    timelines = {name: m.timeline(epochs, steps) for name, m in study.methods.items()}
    highest = max(float(timeline.rates.max()) for timeline in timelines.values())
    say(
        f"{study.title}: {epochs} epochs of fine-tuning after {study.pretrain.epochs} of "
        f"{study.pretrain.name}. Bars: the rate, a full cell is {highest:g}; "
        "o: capture, |: restart from the average."
    )
    if study.tuning:
        say("Rates as the file has them; `swabench tune` chooses the settings that they run with.")
    paths = trajectories(study.methods)
    say(f"{len(study.methods)} rows on {len(paths)} trajectories, each trained once per seed.")
    width = max(1, min(4, (out.width - 2) // epochs))
    for name, method in study.methods.items():
        averaging = method.averaging.describe() if method.averaging else "no averaging"
        own = f"; optimizer {method.optimizer.name}" if method.optimizer else ""
        say(f"\n{name} ({method.title})\n  rate {method.rate.describe()}; {averaging}{own}")
        for line in draw_rate(timelines[name], highest, epochs, width):
            if line.strip():
                say(f"  {line}")


@app.command()
@with_options
def validate(
    asked: Asked,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Check a study without running it: what it would run, and about how long that takes."""
    from swabench.system.device import choose_device, use_threads

    written, chosen = asked.as_written()
    target = choose_device(device)
    use_threads(threads)
    tuned = asked.tuned(written)
    planned = plan.planned(tuned or written, asked.results, chosen, target, tuned is not None)
    if json:
        say_json(planned)
        return
    for line in plan.in_words(planned):
        say(line)


def _say_diverged(store: "RecordStore", names: list[str], seeds: list[int]) -> None:
    from swabench.runs.diverged import listed

    if runs := store.diverged(names, seeds):
        say(listed(runs), to=err)


def _publication(study: Study, store: "RecordStore", seeds: list[int]) -> "Publication":
    from swabench.analysis.publish import Publication
    from swabench.analysis.publish_sources import SourcesPublication

    if study.one_source_at_a_time:
        return SourcesPublication(study, store, seeds)
    return Publication(study, store, seeds)


def _publish(
    document: "Callable[[Publication], Published]", asked: Asked, json: bool = False
) -> None:
    """Write one document; what is missing ends in an error, after everything else was printed."""
    from swabench.records import RecordStore

    study, chosen = asked.study()
    store = RecordStore.to_read(asked.results, study)
    published = document(_publication(study, store, chosen))
    _show(published, store, json)
    if published.lacking:
        raise SwabenchError(published.lacking)


def _tuned_now(asked: AskedWork, study: Study) -> Study:
    """Tune a study that is to run, and return it as it then runs."""
    say(f"tuning first: {asked.results / study.name} has no choices of this search space")
    _print(*tuning.carry_out(asked, study))
    return asked.study()[0]


def _show(published: "Published", store: "RecordStore", json: bool) -> None:
    """Print what was written, for a person or for a program."""
    if json:
        say_json(published.content)
        say(_written(published, store), to=err)
    else:
        _print(published, store)


def _print(published: "Published", store: "RecordStore") -> str:
    """Print what was written; returns what is missing."""
    if published.shown is not None:
        print_table(published.title, published.shown)
    for line in published.notes:
        say(line)
    if published.files:
        say(_written(published, store))
    return published.lacking


def _written(published: "Published", store: "RecordStore") -> str:
    return f"written to {store.folder}: {', '.join(published.files)}"


def main() -> None:
    """Entry point of the `swabench` command."""
    with tolerant_streams():
        app()
