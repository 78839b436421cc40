"""Recorded results that other runs start from: whether they are there, and any good."""

from collections.abc import Sequence

import torch

from swabench.records import Provenance, Record, check_made_from
from swabench.runs.learners import Start
from swabench.study.study import Study
from swabench.system.errors import InputError, SwabenchError


def check_starts(study: Study, records: Sequence[Record | None]) -> None:
    """Stop before methods start from weights that are no good; no seed is left out for it.

    Args:
        study: The study.
        records: Its pretraining's, of some seeds.

    Raises:
        SwabenchError: Some are below the study's `minimum_accuracy`.
    """
    least = study.pretrain.minimum_accuracy
    if least is None:
        return
    reached = {r.seed: r.final_accuracy("validation") for r in records if r}
    if low := [f"{value:.1f} % at seed {s}" for s, value in reached.items() if value < least]:
        raise SwabenchError(
            f"{study.name}: {study.pretrain.name} reaches {', '.join(low)} on the validation "
            f"images, and pretrain.minimum_accuracy is {least:g} %; a comparison from such a start "
            "says nothing. Train it longer or at another rate"
        )


def result_of(record: Record, provenance: Provenance) -> Start:
    """What a run handed over in the end.

    Args:
        record: The run's.
        provenance: Of what is at hand, from which whoever starts there is made.

    Raises:
        InputError: It diverged, was made from something else, or its weights were not kept.
    """
    if record.diverged:
        raise InputError(
            f"{record.folder}: {record.method} diverged at seed {record.seed} "
            f"({record.diverged}), so it has no weights; name another run"
        )
    check_made_from(record, provenance)
    arrays = record.arrays()
    if (weights := arrays.weights(record.result)) is None:
        raise InputError(
            f"{record.folder}: holds no weights; set finetune.keep_weights to result, delete "
            "it and run again"
        )
    return Start(torch.tensor(weights), torch.tensor(arrays.statistics(record.result)))
