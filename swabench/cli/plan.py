"""What a study would run, and what to run next: for people and for programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swabench.study.loading import load_study
from swabench.study.search_space import trial_study, tuning_of
from swabench.study.study import Study
from swabench.study.trajectories import trajectories
from swabench.system.errors import SwabenchError, first_line
from swabench.system.progress import duration

WORKERS = (1, 8, 64)
"""For how many the time is told."""

if TYPE_CHECKING:  # torch takes seconds to import, and `--help` needs none
    import torch

    from swabench.runs.estimate import Costs


_BESIDE = "; trajectories of a network, which train side by side there, take less"


def planned(
    study: Study,
    results: Path,
    seeds: Sequence[int],
    device: "torch.device",
    tuned: bool = True,
    jobs: int | None = None,
) -> dict[str, Any]:
    """What a study would run, and about how long that takes, for `validate --json`.

    Args:
        study: The study, with its chosen settings where there are any.
        results: The results folder.
        seeds: Which seeds.
        device: Where it would run.
        tuned: Whether it needs no tuning any more, if it ever did.
        jobs: For how many workers the time is told, beside 1, 8 and 64; None for none.

    Returns:
        `runs.to_do` lists (method, seed); `time` is None where nothing is left to do, has an
        `error` where it cannot be estimated, and is in seconds otherwise. `spread` has the units
        of each wave and the time by the number of workers, where that was asked for. `tuning` is
        the same of the trials, and `starts_from` of the other study's run that is its backbone;
        None each where the study has none.
    """
    from swabench.records import RecordStore
    from swabench.runs.estimate import Costs

    runs = list(study.run_names)
    missing = RecordStore(results, study).missing(runs, seeds)
    costs = Costs(study, device) if missing else None
    return {
        "study": study.name,
        "title": study.title,
        "valid": True,
        "pretrain": _stage(study.pretrain, "name", "trainable", "epochs"),
        "finetune": _stage(study.finetune, "trainable", "epochs", "batch_size"),
        "rows": list(study.row_names),
        "controls": list(study.controls),
        "rate_sweep": runs[len(study.row_names) + len(study.controls) :],
        "fine_tuned_per_seed": len(study.all_methods),
        "trajectories": len(trajectories(study.all_methods)),
        "seeds": list(seeds),
        "seed_draws": list(study.seed_draws),
        "one_source_at_a_time": study.one_source_at_a_time,
        "draws": study.draws_in_words,
        "runs": {"to_do": missing, "done": len(runs) * len(seeds) - len(missing)},
        "time": costs and _time(costs, missing),
        "spread": costs and jobs and _spread(study, missing, costs, jobs),
        "tuning": _tuning(study, results, device, tuned) if study.tuning else None,
        "starts_from": _starting_run(study, results, device),
    }


def _starting_run(study: Study, results: Path, device: "torch.device") -> dict[str, Any] | None:
    """What is left to do of the other study's run that is a study's backbone."""
    from swabench.data.inputs import starting_run
    from swabench.records import RecordStore
    from swabench.runs.estimate import Costs

    if not (found := starting_run(study)):
        return None
    other, run = found
    names = list(dict.fromkeys((other.pretrain.name, run.method)))
    missing = RecordStore(results, other).missing(names, [run.seed])
    return {
        "study": other.name,
        "method": run.method,
        "seed": run.seed,
        "to_do": missing,
        "time": _time(Costs(other, device), missing) if missing else None,
    }


def _tuning(study: Study, results: Path, device: "torch.device", done: bool) -> dict[str, Any]:
    """What a study's tuning would run; nothing where it is done, even if its records are gone."""
    from swabench.records import RecordStore
    from swabench.runs.estimate import Costs
    from swabench.runs.tuning import LOOKED_AT

    space, trials = tuning_of(study), trial_study(study)
    runs, seeds = list(trials.run_names), list(trials.seeds)
    store = RecordStore(results, study).of_trials()
    missing = [] if done else store.missing(runs, seeds)
    return {
        "families": list(space.families),
        "trials_per_family": space.trials_per_family,
        "trials": len(trials.methods),
        "trajectories": len(trajectories(trials.methods)),
        "sides": {side: list(families) for side, families in space.sides.items()},
        "seeds": seeds,
        "runs": {"to_do": missing, "done": len(runs) * len(seeds) - len(missing)},
        "time": _time(Costs(trials, device, LOOKED_AT), missing) if missing else None,
    }


def in_words(plan: dict[str, Any]) -> list[str]:
    """The same in lines for a person."""
    start, after, runs, tuning = (plan[k] for k in ("pretrain", "finetune", "runs", "tuning"))
    lines = [
        f"{plan['study']}: {plan['title']}: the study is valid",
        f"  trains      {start['trainable']} by {start['name']} ({start['epochs']} epochs), then "
        f"{after['trainable']} ({after['epochs']} epochs, batch {after['batch_size']})",
        f"  rows        {', '.join(plan['rows'])}",
    ]
    if plan["controls"]:
        lines.append(f"  controls    {', '.join(plan['controls'])}")
    if plan["rate_sweep"]:
        lines.append(f"  rate sweep  {', '.join(plan['rate_sweep'])}")
    lines += [
        f"  fine-tunes  {plan['fine_tuned_per_seed']} runs per seed, on {plan['trajectories']} "
        "trajectories",
        f"  seeds       {', '.join(map(str, plan['seeds']))}",
        f"  draws       {plan['draws']}",
        f"  runs        {len(runs['to_do'])} to do, {runs['done']} done",
    ]
    if plan["time"]:
        lines.append(f"  time        {_time_in_words(plan['time'])}")
    if plan["starts_from"]:
        lines += _starting_run_in_words(plan["starts_from"])
    if plan["spread"]:
        lines += _spread_in_words(plan["spread"])
    return lines + (_tuning_in_words(tuning) if tuning else [])


def _starting_run_in_words(found: dict[str, Any]) -> list[str]:
    run = f"{found['method']} at seed {found['seed']} of study {found['study']}"
    if not found["to_do"]:
        return [f"  starts from {run}, which is done"]
    return [
        f"  starts from {run}, which runs first:",
        f"              {_time_in_words(found['time'])}",
    ]


def _spread_in_words(found: dict[str, Any]) -> list[str]:
    lines = [
        f"{len(wave['seconds'])} of {wave['title']}, {_from_to(wave['seconds'])}"
        for wave in found["units"]
    ]
    times = [
        f"{duration(seconds)} on {number}"
        for number, seconds in found["seconds_on_workers"].items()
    ]
    lines.append(
        f"about {', '.join(times)} workers like this machine with its threads; "
        f"never less than {duration(found['longest_chain_seconds'])}, the longest chain"
    )
    return [f"  {'units' if not place else '':<11} {line}" for place, line in enumerate(lines)]


def _from_to(seconds: Sequence[float]) -> str:
    least, most = duration(min(seconds)), duration(max(seconds))
    each = " each" if len(seconds) > 1 else ""
    return f"{least} to {most}{each}" if least != most else f"{most}{each}"


def _tuning_in_words(trials: dict[str, Any]) -> list[str]:
    seeds = ", ".join(map(str, trials["seeds"]))
    lines = [
        f"  tuning      {trials['trials']} trials on {trials['trajectories']} trajectories: "
        f"{len(trials['families'])} families with {trials['trials_per_family']} each; "
        f"seeds {seeds}",
        f"              {len(trials['runs']['to_do'])} runs to do, {trials['runs']['done']} done",
    ]
    if trials["time"]:
        lines.append(f"              {_time_in_words(trials['time'])}")
    return lines


def next_studies(study: Study, device: str) -> list[str]:
    """What to run next after a study of the final layer, a line each."""
    if study.finetune.trainable != "head":
        return []
    fair = (
        "next: `swabench reproduce --config mnist-tuned` compares averaging with annealing fairly, "
        "each method with settings of its own choice"
    )
    return [*([fair] if study.name == "mnist" else []), *_next_network(study, device)]


def _next_network(study: Study, device: str) -> list[str]:
    """Training all of the network on a GPU; on a CPU, after the default study, its last stage."""
    from swabench.system.device import choose_device

    target = choose_device(device)
    on_gpu = target.type == "cuda"
    if not on_gpu and study.name != "mnist":
        return []
    name, part = ("network", "all of ResNet-50") if on_gpu else ("layer4", "ResNet-50's last stage")
    where = ", on this GPU" if on_gpu else ""
    what = f"next{where}: `swabench reproduce --config {name}` fine-tunes {part}"
    try:
        network = load_study(name)
        seconds = _seconds_of_all(network, target)
    except Exception as error:  # the study is finished: a failing hint must not end the command
        reason = first_line(error)
        return [f"{what}; the time cannot be estimated: {reason}"]
    return [f"{what}, in about {duration(seconds)} by a probe of a few steps"]


def _seconds_of_all(study: Study, device: "torch.device") -> float:
    """What a study takes from its features on, tuning included, but for its landscape."""
    from swabench.runs.estimate import estimate
    from swabench.runs.tuning import LOOKED_AT

    cost = estimate(study, [(m, s) for m in study.run_names for s in study.seeds], device)
    seconds = cost.features_seconds + cost.training_seconds
    if study.tuning:
        trials = trial_study(study)
        runs = [(m, s) for m in trials.run_names for s in trials.seeds]
        seconds += estimate(trials, runs, device, LOOKED_AT).training_seconds
    return seconds


def _stage(stage: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(stage, name) for name in names}


def _time(costs: "Costs", missing: Sequence[tuple[str, int]]) -> dict[str, Any]:
    try:
        return {
            "device": costs.device.type,
            "features_seconds": costs.features_seconds(missing),
            "training_seconds": costs.training_seconds(missing),
        }
    except SwabenchError as error:
        return {"device": costs.device.type, "error": str(error)}


def _spread(
    study: Study, missing: Sequence[tuple[str, int]], costs: "Costs", jobs: int
) -> dict[str, Any] | None:
    """How a study's runs are cut into units, and the time on several workers.

    None where it cannot be estimated, which `_time` says.
    """
    from swabench.runs.planning import spread_of

    try:
        found = spread_of(study, missing, costs)
    except SwabenchError:
        return None
    return {
        "units": [{"title": wave.title, "seconds": list(wave.seconds)} for wave in found.waves],
        "longest_chain_seconds": found.longest_chain,
        "seconds_on_workers": {n: found.on(n) for n in sorted({*WORKERS, jobs})},
    }


def _time_in_words(time: dict[str, Any]) -> str:
    if "error" in time:
        return f"the time cannot be estimated: {time['error']}"
    features = time["features_seconds"]
    frozen = f"{duration(features)} for the frozen layers (nothing if cached) and "
    return (
        f"about {frozen if features else ''}{duration(time['training_seconds'])} of training on "
        f"{time['device']}, from a probe of a few steps"
        f"{_BESIDE if time['device'] == 'cuda' else ''}"
    )
