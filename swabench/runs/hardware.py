"""All runs of a seed are compared in pairs, so they run on one kind of hardware."""

from collections.abc import Iterable

from swabench.records import RecordStore
from swabench.study.study import Study
from swabench.system.errors import InputError


def hardware_of(study: Study, store: RecordStore, seeds: Iterable[int]) -> dict[int, str]:
    """The device that each seed is bound to; none for seeds without runs.

    Empty where the study allows hardware to be mixed.
    """
    if study.mixed_hardware == "allow":
        return {}
    found = {}
    for seed in dict.fromkeys(seeds):
        records = (store.find(name, seed) for name in study.run_names)
        devices = (record.environment.get("device_name") for record in records if record)
        if device := next(devices, None):
            found[seed] = device
    return found


def check_hardware(study: Study, store: RecordStore, seed: int, device: str) -> None:
    """Refuse to train a seed on another kind of device than the runs that it has.

    Raises:
        InputError: The seed has runs of another kind.
    """
    bound = hardware_of(study, store, [seed]).get(seed, device)
    if bound != device:
        raise InputError(
            f"{store.folder}: seed {seed} has runs on {bound}, and this is {device}; runs of a "
            "seed are compared in pairs, so go on there, choose another folder with --results, "
            "or set `mixed_hardware: allow` in the study"
        )
