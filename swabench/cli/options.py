"""The options that several commands share, and what they accept."""

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swabench.cli.parsing import parse_duration, parse_seeds, parse_shard
from swabench.cli.printing import progress, say_at_once
from swabench.study.loading import bundled_studies, load_study
from swabench.study.study import Study
from swabench.system.errors import InputError
from swabench.system.pausing import Pause

if TYPE_CHECKING:  # torch takes seconds to import, and `--help` needs none
    from swabench.runs.experiment import Experiment
    from swabench.runs.places import Place

DEFAULT_RESULTS = Path("results")

PAUSE = Pause(say_at_once)
"""Heard by whatever command runs; one, as signals are the process's."""

AT_END = ExitStack()
"""What is to be closed when the command ends."""


def _studies(incomplete: str) -> list[str]:
    """What a shell offers after `--config`: bundled studies, YAML files and folders."""
    # Of the path begun: a shell that is offered words no longer offers files by itself.
    typed = Path(incomplete)
    folder = typed if incomplete.endswith("/") else typed.parent
    paths = sorted(folder.glob("*")) if folder.is_dir() else []
    files = [str(path) for path in paths if path.suffix in {".yaml", ".yml"}]
    folders = [f"{path}/" for path in paths if path.is_dir()]
    return [name for name in (*bundled_studies(), *files, *folders) if name.startswith(incomplete)]


def _devices(incomplete: str) -> list[str]:
    return [name for name in ("auto", "cpu", "cuda", "mps") if name.startswith(incomplete)]


def _places(incomplete: str) -> list[str]:
    return [name for name in ("local", "processes", "ray") if name.startswith(incomplete)]


ConfigOption = Annotated[
    str,
    typer.Option(
        "--config",
        "-c",
        help="A study: a YAML file, or the name of a bundled one.",
        autocompletion=_studies,
    ),
]
ResultsOption = Annotated[
    Path, typer.Option("--results", "-r", help="Folder for records, tables and manifests.")
]
SeedsOption = Annotated[
    str | None,
    typer.Option(
        "--seeds",
        "-s",
        help="In place of the study's: a number of seeds (5), or a list (0,3,7-9).",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        "-d",
        help="auto, cpu, cuda or mps; auto takes a GPU if there is one.",
        autocompletion=_devices,
    ),
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
        help="CPU threads to compute with: by default all cores, shared out with --jobs, and one a "
        "worker with --on ray. Another number changes the last digits.",
    ),
]
SaveEveryOption = Annotated[
    str,
    typer.Option(
        "--save-every",
        help="How often a run's state is kept, at an epoch's end: 90s, 2m, 1h. An interruption "
        "costs at most that much work, or an epoch's where that is more.",
    ),
]
StopAfterOption = Annotated[
    str | None,
    typer.Option(
        "--stop-after",
        help="Pause after this time (50m, 3h30m), for queues; the same command goes on.",
    ),
]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        help="Where: local (this process, the default), processes (several on this machine), ray "
        "(a cluster, found or started here) or ray:ADDRESS.",
        autocompletion=_places,
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        help="How many workers share the study's seeds; --jobs 2 alone means --on processes. "
        "Threads are shared out, unless --threads says how many each has.",
    ),
]
GpusPerUnitOption = Annotated[
    float,
    typer.Option(
        "--gpus-per-unit",
        min=0,
        help="With --on ray, on GPUs: how many each worker takes; 0.5 lets two share one.",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="Only a share of the seeds: 2/8 is the second of eight (at most as many shares as "
        "seeds). For queues, a job a share; of `reproduce` the last one writes the documents.",
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress; results and errors are still shown.")
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON object on standard output; notes go to standard error."
    ),
]


@dataclass(frozen=True)
class Asked:
    """The options of every command that reads records."""

    config: ConfigOption = "mnist"
    results: ResultsOption = DEFAULT_RESULTS
    seeds: SeedsOption = None

    def begin(self) -> None:
        """What is to happen before the command; nothing for those that only read."""

    def as_written(self) -> tuple[Study, list[int]]:
        """The study as its file has it, and its seeds or those given instead.

        Raises:
            InputError: One of the two options is wrong.
        """
        study = load_study(self.config)
        seeds = list(study.seeds) if self.seeds is None else parse_seeds(self.seeds)
        if study.tuning and (shared := sorted(set(seeds) & set(study.tuning.seeds))):
            raise InputError(
                f"--seeds: {', '.join(map(str, shared))} tuned the study; give others, so that "
                "nothing is reported on what it was chosen by"
            )
        return study, seeds

    def study(self) -> tuple[Study, list[int]]:
        """The study that runs, with the settings that tuning chose, and its seeds.

        Raises:
            InputError: An option is wrong, or the study has yet to be tuned.
        """
        study, seeds = self.as_written()
        if (found := self.tuned(study)) is None:
            raise InputError(
                f"study {study.name!r} is to be tuned first: {self.results / study.name} has no "
                f"choices of its search space; run `swabench tune --config {self.config}`"
            )
        return found, seeds

    def tuned(self, study: Study) -> Study | None:
        """The study with the settings that tuning chose; None where it has yet to choose."""
        if study.tuning is None:
            return study
        from swabench.records import tuned_study

        return tuned_study(self.results, study)


@dataclass(frozen=True)
class AskedWork(Asked):
    """The options of every command that computes."""

    device: DeviceOption = "auto"
    threads: ThreadsOption = None
    save_every: SaveEveryOption = "2m"
    stop_after: StopAfterOption = None
    quiet: QuietOption = False

    def begin(self) -> None:
        """Let the time that was given run from now on.

        Raises:
            InputError: It is no time.
        """
        if self.stop_after is not None:
            seconds = parse_duration("--stop-after", self.stop_after)
            if not seconds:
                raise InputError("--stop-after: no time; give a time such as 90s, 50m or 3h30m")
            PAUSE.after(seconds)

    def experiment(self, study: Study, results: Path | None = None, **options: Any) -> "Experiment":
        """What does the work, on the device and with the threads that were asked for.

        Args:
            study: What to run.
            results: Where, if not in the results folder that was asked for.
            options: Others of `Experiment`.

        Raises:
            InputError: An option is wrong.
        """
        from swabench.data.datasets import user_cache
        from swabench.runs.experiment import Experiment
        from swabench.system.device import choose_device, use_repeatable_kernels, use_threads

        use_threads(self.threads)
        use_repeatable_kernels()
        return Experiment(
            study,
            results or self.results,
            choose_device(self._device_here),
            user_cache(),
            progress(self.quiet),
            pause=PAUSE,
            save_every=parse_duration("--save-every", self.save_every),
            **options,
        )

    @property
    def _device_here(self) -> str:
        """What `--device` means for this process."""
        return self.device


@dataclass(frozen=True)
class AskedUnits(AskedWork):
    """The options of every command whose work can be spread over processes and machines."""

    on: OnOption = None
    jobs: JobsOption = None
    gpus_per_unit: GpusPerUnitOption = 1.0

    def experiment(self, study: Study, results: Path | None = None, **options: Any) -> "Experiment":
        """What does the work, or has it done where that was asked for."""
        return super().experiment(study, results, place=self._place, **options)

    @property
    def _device_here(self) -> str:
        """Workers of a cluster have theirs; who drives them may have no such device."""
        return "auto" if (self.on or "").startswith("ray") else self.device

    @cached_property
    def _place(self) -> "Place":
        """Where units are executed, until the command ends."""
        from swabench.runs.places import Options, place_when_needed

        name = self.on or ("processes" if (self.jobs or 1) > 1 else "local")
        if name == "local" and (self.jobs or 1) > 1:
            raise InputError(
                f"--jobs: {self.jobs} with --on local, which is one process; leave one out"
            )
        shown = progress(self.quiet)
        options = Options(self.jobs, self.threads, self.device, self.gpus_per_unit, shown, PAUSE)
        place = place_when_needed(name, options)
        AT_END.callback(place.close)
        return place


@dataclass(frozen=True)
class AskedShard(AskedUnits):
    """The options of a command that may do a share of a study's seeds alone."""

    shard: ShardOption = None

    def own(self, seeds: Sequence[int]) -> list[int]:
        """Those of some seeds that this command is to do: neighbours, in shares of like size.

        Raises:
            InputError: The option is wrong, or leaves none.
        """
        if self.shard is None:
            return list(seeds)
        number, of = parse_shard(self.shard)
        first, end = (len(seeds) * place // of for place in (number - 1, number))
        if not (mine := list(seeds[first:end])):
            raise InputError(
                f"--shard: {self.shard} has no seed, as there are {len(seeds)}; use at most "
                f"{len(seeds)} shares"
            )
        return mine


@dataclass(frozen=True)
class AskedOfAll(AskedWork):
    """Those of a command that computes and chooses its seeds itself."""

    seeds: SeedsOption = field(init=False, default=None)


@dataclass(frozen=True)
class AskedTuning(AskedUnits):
    """Those of a tuning."""

    seeds: SeedsOption = field(init=False, default=None)
    config: ConfigOption = "mnist-tuned"


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the fields of its parameter `asked` as options, as typer needs them.

    An option that many commands share is written once, as a field of `Asked` or `AskedWork`.
    """
    signature = inspect.signature(command)
    own = dict(signature.parameters)
    kind = own.pop("asked").annotation
    shared = inspect.signature(kind).parameters

    @functools.wraps(command)
    def run(**given: Any) -> None:
        asked = kind(**{name: given.pop(name) for name in shared})
        asked.begin()
        command(asked=asked, **given)

    required = [p for p in own.values() if p.default is p.empty]
    optional = [p for p in own.values() if p.default is not p.empty]
    parameters = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for p in (*required, *shared.values(), *optional)
    ]
    vars(run)["__signature__"] = signature.replace(parameters=parameters)
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run
