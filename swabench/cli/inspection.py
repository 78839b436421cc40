"""The commands that say what a study is, what it would run, and what it has."""

from swabench.cli import plan
from swabench.cli.app import LOOK, app
from swabench.cli.drawing import draw_rate
from swabench.cli.options import (
    Asked,
    ConfigOption,
    DeviceOption,
    JobsOption,
    JsonOption,
    OnOption,
    QuietOption,
    ThreadsOption,
    with_options,
)
from swabench.cli.printing import out, print_table, progress, say, say_json
from swabench.study.loading import load_study
from swabench.study.trajectories import trajectories


@app.command(rich_help_panel=LOOK)
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


@app.command(rich_help_panel=LOOK)
@with_options
def validate(
    asked: Asked,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    on: OnOption = None,
    jobs: JobsOption = None,
    json: JsonOption = False,
) -> None:
    """Check a study without running it: what it would run, and about how long that takes.

    The time is that of features and training; the landscape and documents come on top.

    With --on or --jobs also how it is cut into units, and the time on 1, 8 and 64 workers like
    this machine.

    Example: swabench validate --config layer4 --on ray --threads 1
    """
    from swabench.runs.places import kind_of_place
    from swabench.system.device import choose_device, use_threads

    written, chosen = asked.as_written()
    target = choose_device(device)
    use_threads(threads)
    tuned = asked.tuned(written)
    local = kind_of_place(on or "local") == "local"
    workers = jobs or (None if local else 1)
    planned = plan.planned(
        tuned or written, asked.results, chosen, target, tuned is not None, workers
    )
    if json:
        say_json(planned)
        return
    for line in plan.in_words(planned):
        say(line)


@app.command(rich_help_panel=LOOK)
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


@app.command(rich_help_panel=LOOK)
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
