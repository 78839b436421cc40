"""Which parts of a study's landscape are measured, which are to be, and why one cannot be."""

from collections.abc import Sequence

from swabench.records import RecordStore
from swabench.study.landscape import PARTS, Part
from swabench.study.study import Study


def wanted_parts(
    study: Study, seeds: Sequence[int], own: Sequence[int] | None = None
) -> list[tuple[Part, int]]:
    """The parts of a study's landscape, as (part, seed), seed by seed.

    Args:
        study: The study.
        seeds: Its seeds, of which a part looks at the first few.
        own: Those of them that are meant; all by default.
    """
    return [
        (part, seed)
        for seed in (seeds if own is None else own)
        for part in PARTS
        if study.landscape_rows(part) and seed in study.landscape_seeds(part, seeds)
    ]


def missing_parts(
    study: Study, store: RecordStore, seeds: Sequence[int], own: Sequence[int] | None = None
) -> list[tuple[Part, int]]:
    """Those that have no record."""
    wanted = wanted_parts(study, seeds, own)
    return [(part, seed) for part, seed in wanted if store.find_landscape(part, seed) is None]


def unsurveyable(
    study: Study, store: RecordStore, seeds: Sequence[int], own: Sequence[int] | None = None
) -> str:
    """Why the landscape cannot be measured, before anything is loaded; empty where it can."""
    if study.one_source_at_a_time or {"split", "backbone"} & set(study.seed_draws):
        return (
            f"the seeds of study {study.name!r} draw other things than the final layer's start and "
            "the order of the data, or one at a time; a landscape is measured on one split and one "
            "backbone"
        )
    network = study.finetune.trainable != "head"
    if network and study.finetune.batchnorm != "train":
        return (
            f"study {study.name!r} has finetune.batchnorm {study.finetune.batchnorm!r}; the "
            "landscape of a network measures BatchNorm anew at every point, which fits `train`"
        )
    if not study.averaging_methods:
        return f"study {study.name!r} has no averaging method to look at"
    if not network and not study.backbone.cache_features:
        return f"study {study.name!r} caches no features, which the landscape is measured on"
    parts = missing_parts(study, store, seeds, own)
    runs = {(name, seed) for part, seed in parts for name in study.landscape_rows(part)}
    found = sorted((record for name, seed in runs if (record := store.find(name, seed))), key=str)
    if lost := [record for record in found if record.diverged]:
        always = {study.pretrain.name, study.reference}  # whatever rows a study names
        can_do_without = always.isdisjoint(record.method for record in lost)
        return (
            f"runs of study {study.name!r} diverged and have no weights "
            f"({'; '.join(map(str, lost))})"
            + ("; name the other rows in landscape.methods" if can_do_without else "")
        )
    missing = sorted(f"{name} at seed {seed}" for name, seed in runs if not store.find(name, seed))
    if missing:
        return (
            f"study {study.name!r} lacks runs ({', '.join(missing)}); "
            "run `swabench finetune --method all` first"
        )
    # A network's trajectories are not kept.
    bare = [str(r) for r in found if not (r.holds_weights and (network or r.holds_trajectory))]
    if bare:
        return f"weights were not kept of {', '.join(bare)} (finetune.keep_weights)"
    return ""
