"""Which runs of a seed train together, and which need no training at all.

What a run records depends, in its last digits, on the composition of its group. So a run that was
once trained in a group is trained in that group again, and an interrupted study gives what an
uninterrupted one does. What a changed study adds is a group of its own; an average of epochs on a
trajectory that is recorded already is made from the record.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swabench.records import Record, RecordStore
from swabench.runs.learners import in_lockstep
from swabench.study.study import Study
from swabench.study.trajectories import by_optimizer, trajectories
from swabench.training.replay import is_of_epochs


@dataclass(frozen=True)
class Group:
    """Runs of a seed that take every step together.

    Attributes:
        names: Their names, in order.
        source: A recorded run on their one trajectory, whose epochs are gone through again in
            place of training; None where they are trained.
    """

    names: Sequence[str]
    source: Record | None = None


def groups_of(
    study: Study, store: RecordStore, wanted: Sequence[str], seed: int, steps_per_epoch: int
) -> list[Group]:
    """The groups that give all wanted runs of a seed their records.

    Heads train together where they share an optimizer; of networks, those on one trajectory.
    """
    methods = study.all_methods
    lockstep = in_lockstep(study, study.finetune.trainable)
    records = {name: store.find(name, seed) for name in methods}
    found: list[Group] = []
    for together in by_optimizer(methods) if lockstep else trajectories(methods):
        identities = {name: store.identity(name, seed) for name in together}
        recorded = {name: record for name in together if (record := records[name])}
        known = {run for record in recorded.values() for run in record.trained_with.items()}
        for names in missing_groups(identities, {n: r.trained_with for n, r in recorded.items()}):
            if lockstep and known.isdisjoint((name, identities[name]) for name in names):
                found += _with_sources(study, names, recorded, steps_per_epoch)
            else:
                found.append(Group(names, _same_source(names, recorded)))
    return [group for group in found if not set(wanted).isdisjoint(group.names)]


def missing_groups(
    identities: Mapping[str, str], recorded: Mapping[str, Mapping[str, str]]
) -> list[list[str]]:
    """Which runs of a seed must train together so that those without a record get theirs.

    Args:
        identities: Of all runs of the seed that can train together, by name, in order.
        recorded: For each run that has a record, by name, the group it was trained in.
    """
    missing = set(identities) - set(recorded)
    groups = []
    for trained_with in recorded.values():
        if missing & set(trained_with) and trained_with.items() <= identities.items():
            groups.append(list(trained_with))
            missing -= set(trained_with)
    if missing:
        groups.append([name for name in identities if name in missing])
    return groups


def _same_source(names: Sequence[str], recorded: Mapping[str, Record]) -> Record | None:
    """The run whose epochs a group was made of when some of it were recorded, if it was."""
    digests = {recorded[name].provenance.get("snapshots") for name in names if name in recorded}
    return next((r for r in recorded.values() if r.arrays_sha256 in digests), None)


def _with_sources(
    study: Study, names: Sequence[str], recorded: Mapping[str, Record], steps_per_epoch: int
) -> list[Group]:
    """A new group without the runs that recorded trajectories give, which are groups apart."""
    methods, epochs = study.all_methods, study.finetune.epochs
    groups, rest = [], list(names)
    for on_path in trajectories(methods):
        sources = (recorded[name] for name in on_path if name in recorded)
        source = next((record for record in sources if record.holds_trajectory), None)
        given = [
            name
            for name in on_path
            if name in rest
            and is_of_epochs(methods[name].timeline(epochs, steps_per_epoch), steps_per_epoch)
        ]
        if source and given:
            groups.append(Group(given, source))
            rest = [name for name in rest if name not in given]
    return groups + ([Group(rest)] if rest else [])
