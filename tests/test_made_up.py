"""The made-up records themselves: what is mixed up anywhere must show as another number."""

from pathlib import Path

import numpy as np

from tests.made_up import outcome, record_of, small_study, splits, study_with, write_study


def test_no_number_of_a_study_occurs_twice(tmp_path: Path) -> None:
    study = study_with(2)
    store = write_study(tmp_path, study)
    records = [record_of(store, name, seed) for name in study.run_names for seed in study.seeds]
    for measure in ("accuracy", "loss"):
        found = [getattr(m, measure) for record in records for m in record.history]
        assert len(set(found)) == len(found)
    arrays = [
        values.tobytes()
        for record in records
        for key, values in record.arrays().items()
        if not key.startswith("labels")
    ]
    finals = len({record.arrays()["weights/iterate"].tobytes() for record in records})
    assert finals == len(records)
    assert len(set(arrays)) == len(arrays)
    assert len({record.seconds for record in records}) == len(records)


def test_every_split_has_images_and_labels_of_its_own() -> None:
    found = splits()
    sizes = {len(split) for split in found.values()}
    assert len(sizes) == len(found) == 3
    starts = [tuple(split.labels[:20].tolist()) for split in found.values()]
    assert len(set(starts)) == 3


def test_a_way_leads_from_the_pretrained_weights_to_the_iterate() -> None:
    study = small_study()
    pretrained = outcome(study, "adam", 1).weights["iterate"]
    for name in study.methods:
        run = outcome(study, name, 1)
        assert run.trajectory is not None
        assert len(run.trajectory) == study.finetune.epochs + 1
        np.testing.assert_array_equal(run.trajectory[0], pretrained)
        np.testing.assert_array_equal(run.trajectory[-1], run.weights["iterate"])
