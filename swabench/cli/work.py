"""The commands that compute, and the one that mends what they left behind."""

import itertools
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swabench.cli import plan, tuning
from swabench.cli.app import RUN, app
from swabench.cli.documents import print_published, publication_of, show_published, work_left
from swabench.cli.options import (
    DEFAULT_RESULTS,
    AskedOfAll,
    AskedShard,
    AskedTuning,
    ConfigOption,
    JsonOption,
    MethodOption,
    ResultsOption,
    with_options,
)
from swabench.cli.printing import err, numbers, say
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.system.errors import DivergedError, InputError, SwabenchError

if TYPE_CHECKING:  # pandas takes long to import, and `--help` needs none
    from swabench.records import RecordStore
    from swabench.runs.experiment import Experiment


@app.command(rich_help_panel=RUN)
@with_options
def reproduce(asked: AskedShard) -> None:
    """Run everything: data, all runs, landscape, table, figures, claims, report.

    Finished runs are skipped, so interrupted studies resume. A study with a section `tuning` is
    tuned first, unless that is done. Runs that diverge are recorded and shown so; the command then
    fails in the end, unless the study says `diverged: record`.
    """
    written, chosen = asked.as_written()
    mine = asked.own(chosen)
    study = asked.tuned(written) or _tuned_now(asked, written)
    experiment = asked.experiment(study)
    if "backbone" not in study.seed_draws:  # else backbone by backbone, with what follows
        with suppress(DivergedError):  # fine-tuning says it, too, and what cannot start
            experiment.pretrain(mine)
    problems = [tuning.not_allowed_of_trials(study, experiment.store)]
    try:
        experiment.finetune(list(study.all_methods), mine)
    except DivergedError as error:
        problems.append(str(error))
    store = experiment.store
    published = publication_of(study, store, chosen)
    if mine == chosen:  # shown at once: what follows may take long
        problems.append(print_published(published.table(), store))
        problems.append(_surveyed(experiment, chosen, mine))
    else:
        problems.append(_surveyed(experiment, chosen, mine))
        if left := work_left(study, store, chosen):
            say(
                f"documents: not made: {left} are still to be done; the share that ends last "
                "makes them, or the same command without --shard"
            )
            _end(problems)
            return
        problems.append(print_published(published.table(), store))
    published = publication_of(study, store, chosen)  # with the landscape
    problems.append(print_published(published.landscape(), store))
    problems.append(print_published(published.figures(), store))
    problems.append(print_published(published.claims(), store))
    problems.append(print_published(published.report(), store))
    _end(problems)
    for line in plan.next_studies(study, asked.device):
        say(line)


@app.command(rich_help_panel=RUN)
@with_options
def pretrain(asked: AskedShard) -> None:
    """Pretrain the weights that every method starts from (the paper: Adam), once per seed."""
    study, seeds = asked.study()
    chosen = asked.own(seeds)
    experiment = asked.experiment(study)
    done = experiment.pretrain(chosen)
    say(f"pretraining: {done} seeds trained, {len(chosen) - done} already done")
    _say_diverged(experiment.store, [study.pretrain.name], chosen)


@app.command(rich_help_panel=RUN)
@with_options
def finetune(asked: AskedShard, method: MethodOption) -> None:
    """Fine-tune by one or several methods; pretraining runs first if it is missing.

    Final layers of one seed train together at little more than the cost of one, so all of that
    seed's runs are recorded.

    Example: swabench finetune --method swa --method sgd --seeds 3
    """
    study, seeds = asked.study()
    chosen = asked.own(seeds)
    methods = study.select_methods(method)
    experiment = asked.experiment(study)
    wanted = len(methods) * len(chosen)
    missing = len(experiment.store.missing(methods, chosen))
    done = experiment.finetune(methods, chosen)
    beside = f" (and {done - missing} that train together with them)" if done > missing else ""
    say(f"fine-tuning: {missing} runs done{beside}, {wanted - missing} already done")
    _say_diverged(experiment.store, methods, chosen)


@app.command(rich_help_panel=RUN)
@with_options
def tune(asked: AskedTuning, json: JsonOption = False) -> None:
    """Choose each method's settings by the validation images, with equally many trials a method.

    The study's section `tuning` has a grid for each method and seeds of its own; the test images
    are not looked at. What is chosen goes to choices.yaml in the study's results, and the study
    runs with it as long as its grids, and all that its trials share, stay the same.

    Example: swabench tune --config mnist-tuned
    """
    study, _ = asked.as_written()
    published, store = tuning.carry_out(asked, study, json)
    show_published(published, store, json)
    if problem := tuning.not_allowed_of_trials(study, store):
        raise DivergedError(problem)


@app.command(rich_help_panel=RUN)
@with_options
def landscape(asked: AskedShard) -> None:
    """Measure the loss around the final weights: lines, plane, rays, sharpness, Hessian."""
    study, chosen = asked.study()
    experiment = asked.experiment(study)
    done = experiment.survey(chosen, asked.own(chosen))
    say(f"landscape: {done} parts measured")
    print_published(publication_of(study, experiment.store, chosen).landscape(), experiment.store)


@app.command(rich_help_panel=RUN)
@with_options
def export(
    asked: AskedOfAll,
    method: Annotated[str, typer.Option("--method", "-m", help="A row of the study's table.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A file to write: .safetensors or .pth.")
    ],
    seed: Annotated[int, typer.Option("--seed", help="Which seed's run.")] = 0,
) -> None:
    """Write a run's weights for a plain torchvision resnet50, by load_state_dict.

    Example: swabench export --method swa --seed 0 --output swa.safetensors
    """
    from swabench.runs.export import check_output, write_state

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


@app.command(rich_help_panel=RUN)
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
    from swabench.runs.cache import damaged_entries
    from swabench.system.files import remove

    folder = results / load_study(config).name
    verb = "would remove" if dry_run else "removing"
    damaged = left = 0
    for damage in itertools.chain(damages(folder), damaged_entries(user_cache())):
        say(f"{verb} {damage.path}: {damage.reason}")
        damaged += 1
        if not dry_run:
            remove(damage.path)
    for path in (path for each in (folder, user_cache()) for path in stale_files(each)):
        say(f"{verb} {path}: left behind by a process that is gone")
        left += 1
        if not dry_run:
            remove(path)
    say(f"repair: {damaged} damaged, {left} left behind")


def _say_diverged(store: "RecordStore", names: list[str], seeds: list[int]) -> None:
    from swabench.runs.diverged import listed

    if runs := store.diverged(names, seeds):
        say(listed(runs), to=err)


def _surveyed(experiment: "Experiment", seeds: list[int], own: list[int]) -> str:
    """Measure the landscape, if it can be; returns what is wrong."""
    from swabench.landscape.parts import unsurveyable

    if reason := unsurveyable(experiment.study, experiment.store, seeds, own):
        say(f"landscape: not measured: {reason}")
        return ""
    try:
        experiment.survey(seeds, own)
    except SwabenchError as error:
        return str(error)
    return ""


def _end(problems: list[str]) -> None:
    """End in an error where there were problems, each of which is told once."""
    if found := dict.fromkeys(problem for problem in problems if problem):
        raise SwabenchError("\n".join(found))


def _tuned_now(asked: AskedShard, study: Study) -> Study:
    """Tune a study that is to run, and return it as it then runs.

    Raises:
        InputError: A share of it was asked for: shares would each tune it.
    """
    if asked.shard:
        raise InputError(
            f"--shard: study {study.name!r} is to be tuned first, in one job: run "
            f"`swabench tune --config {asked.config}`, then the shares"
        )
    say(f"tuning first: {asked.results / study.name} has no choices of this search space")
    print_published(*tuning.carry_out(asked, study))
    return asked.study()[0]
