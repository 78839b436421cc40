"""What a survey passes on: a study's settings, the plane's reach, and why one is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swabench.analysis.surveys import gather, surveys, tables_over_seeds
from swabench.landscape import survey
from swabench.landscape.geometry import hessian_trace, largest_eigenvalue, sharpness
from swabench.landscape.network import filter_normalized, network_scores
from swabench.landscape.parts import unsurveyable
from swabench.landscape.survey import surveyed_images, surveyor_of_networks
from swabench.records import RecordStore
from swabench.study.landscape import PARTS
from swabench.study.study import Study
from swabench.system.errors import SwabenchError
from swabench.training.learner import Split
from tests import made_up
from tests.made_up import CLASSES, ENVIRONMENT, FEATURES, PROVENANCE, record_of, small_study

# --- why a survey is refused ---------------------------------------------------------------


BASE = small_study().model_dump()
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "splits": (
        {"seed_draws": ["head", "split"], "data": {**BASE["data"], "test_images": None}},
        "measured on one split and one backbone",
    ),
    "backbones": ({"seed_draws": ["backbone"]}, "measured on one split and one backbone"),
    "no averages": (
        {"methods": {"sgd": BASE["methods"]["sgd"]}, "rate_sweep": None, "claims": {}},
        "has no averaging method to look at",
    ),
    "no cache": ({"backbone": {**BASE["backbone"], "cache_features": False}}, "caches no features"),
    "heads": ({"seed_draws": ["head"]}, ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_why_a_landscape_cannot_be_measured_is_told(tmp_path: Path, case: str) -> None:
    changes, words = REFUSED[case]
    study = Study.model_validate({**BASE, "controls": None, **changes})
    reason = unsurveyable(study, made_up.write_study(tmp_path, study), study.seeds)
    assert words in reason
    assert bool(reason) == bool(words)


# --- the plane -----------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_the_grid_reaches_beyond_the_weights_and_the_ways_by_a_share_of_the_weights_extent(
    tmp_path: Path, margin: float
) -> None:
    study = small_study(plane={"points": 3, "margin": margin})
    found = made_up.surveyor(study, made_up.write_study(tmp_path, study)).measure("plane", 0)
    grid, marks, paths = (found[name] for name in ("grid", "marks", "paths"))
    extent = max(np.ptp(marks["x"]), np.ptp(marks["y"]))
    for axis in ("x", "y"):
        shown = np.concatenate([marks[axis], paths[axis]])
        ends = shown.min() - margin * extent, shown.max() + margin * extent
        np.testing.assert_allclose(grid[axis].unique(), np.linspace(*ends, 3), rtol=1e-6)
    # Here the ways lead beyond the three weights.
    beyond = (paths[["x", "y"]].max() > marks[["x", "y"]].max()) | (
        paths[["x", "y"]].min() < marks[["x", "y"]].min()
    )
    assert beyond.any()


def test_weights_on_one_line_are_told_with_their_seed(tmp_path: Path) -> None:
    study = small_study()
    store = made_up.write_study(tmp_path, study, without=[("swa", 0)])
    ends = [record_of(store, name, 0).arrays()["weights/iterate"] for name in ("adam", "sgd")]
    between = made_up.outcome(study, "swa", 0)
    between.weights["average"] = torch.tensor(ends[0] + ends[1]) / 2
    store.write("swa", 0, between, provenance=PROVENANCE, environment=ENVIRONMENT, seconds=1)
    with pytest.raises(SwabenchError, match=r"adam, sgd, swa at seed 0 span no plane"):
        made_up.surveyor(study, store).measure("plane", 0)


# --- settings ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    return made_up.write_study(tmp_path_factory.mktemp("results"), small_study())


def drawn(study: Study) -> Split:
    return surveyed_images(study.landscape, made_up.splits())[0]


def loss_on(split: Split, weights: Tensor) -> Tensor:
    """Of heads (K, P), by torch.nn.functional alone."""
    matrices = weights[:, : CLASSES * FEATURES].reshape(-1, CLASSES, FEATURES)
    logits = split.inputs @ matrices.transpose(1, 2) + weights[:, None, CLASSES * FEATURES :]
    return torch.stack([F.cross_entropy(each, split.labels) for each in logits])


def results_of(store: RecordStore, names: tuple[str, ...], seed: int) -> Tensor:
    records = [record_of(store, name, seed) for name in names]
    return torch.tensor(np.stack([r.arrays()[f"weights/{r.result}"] for r in records]))


@pytest.mark.parametrize("settings", [{"starts": 1, "steps": 1}, {"starts": 4, "steps": 20}])
def test_sharpness_is_sought_as_the_study_says(
    whole: RecordStore, settings: dict[str, int]
) -> None:
    epsilons = (0.5, 1.5)
    study = small_study(seed=3, sharpness={"epsilons": epsilons, "seeds": 2, **settings})
    rows = study.landscape_rows("sharpness")
    table = made_up.surveyor(study, whole).measure("sharpness", 1)["sharpness"]
    assert list(table["epsilon"]) == [e for e in epsilons for _ in rows]
    highest = []
    for epsilon in epsilons:
        rng = np.random.default_rng([3, 1, PARTS.index("sharpness")])
        weights = results_of(whole, rows, 1)
        images = drawn(study)
        found = sharpness(lambda w, of=images: loss_on(of, w), weights, epsilon, rng, **settings)  # type: ignore[misc]
        highest += found.highest.tolist()
    np.testing.assert_allclose(table["highest"], highest, rtol=1e-4)
    percent = 100 * (table["highest"] - table["loss"]) / (1 + table["loss"])
    np.testing.assert_allclose(table["sharpness"], percent, rtol=1e-6)


def test_sharpness_depends_on_its_settings_here(whole: RecordStore) -> None:
    """Else the test above would not notice one that is left out."""
    found = []
    for settings in ({"starts": 1, "steps": 1}, {"starts": 1}, {"starts": 4}, {}):
        study = small_study(seed=3, sharpness={"epsilons": (0.5, 1.5), "seeds": 2, **settings})
        table = made_up.surveyor(study, whole).measure("sharpness", 1)["sharpness"]
        found.append(table["highest"].round(4).tolist())
    assert found[0] != found[1]
    assert found[2] != found[3]


def test_curvature_is_probed_as_often_and_as_closely_as_the_study_says(
    whole: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tolerances: list[float] = []

    def noted(*given: Any, tolerance: float = 1e-3) -> float:
        tolerances.append(tolerance)
        return largest_eigenvalue(*given, tolerance=tolerance)

    monkeypatch.setattr(survey, "largest_eigenvalue", noted)
    study = small_study(seed=3, hessian={"probes": 5, "tolerance": 0.2})
    rows = study.landscape_rows("hessian")
    table = made_up.surveyor(study, whole).measure("hessian", 1)["hessian"]
    assert tolerances == [0.2] * len(rows)
    images = drawn(study)
    for row, weights in zip(
        table.to_dict(orient="records"), results_of(whole, rows, 1), strict=True
    ):
        rng = np.random.default_rng([3, 1, PARTS.index("hessian")])
        largest_eigenvalue(lambda w: loss_on(images, w), weights, rng, tolerance=0.2)
        expected = hessian_trace(lambda w: loss_on(images, w), weights, rng, probes=5)
        assert row["trace"] == pytest.approx(expected.value, rel=1e-3)
        assert row["trace_standard_error"] == pytest.approx(expected.standard_error, rel=1e-2)


def test_all_of_a_part_is_measured_in_full_float32(
    whole: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients, too: on a GPU a convolution's would be taken with TF32's factors."""
    rough: list[bool] = []

    def noting(own: survey.Surveyor, seed: int) -> survey.Tables:
        rough.append(torch.backends.cudnn.allow_tf32)
        return {}

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(survey.Surveyor, "_hessian", noting)
    made_up.surveyor(small_study(), whole).measure("hessian", 0)
    assert rough == [False]
    assert torch.backends.cudnn.allow_tf32


def test_a_networks_rays_are_as_long_as_its_filters(whole: RecordStore) -> None:
    """A head as a network: each class's weights move by their own norm, and biases not at all."""
    study, network = small_study(), nn.Linear(FEATURES, CLASSES)
    images = made_up.splits()
    measuring = surveyor_of_networks(study, whole, images, network, None, PROVENANCE)
    rays = measuring.measure("rays", 1)["rays"]
    settings, rng = study.landscape.rays, np.random.default_rng([0, 1, PARTS.index("rays")])
    units = [rng.standard_normal((1, made_up.WEIGHTS)) for _ in range(settings.directions)]
    training, test = surveyed_images(study.landscape, images)
    scores = network_scores(network, None, training, test, evaluation_batch=50)
    for row in rays.to_dict(orient="records"):
        weights = results_of(whole, (row["method"],), 1)[0]
        unit = torch.from_numpy(units[row["direction"]] / np.linalg.norm(units[row["direction"]]))
        way = filter_normalized(unit[0].float(), weights, network)
        assert not way[CLASSES * FEATURES :].any()
        at = weights + row["distance"] * way
        accuracy, loss = scores[row["split"]](at.unsqueeze(0))
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert row["accuracy"] == pytest.approx(100 * accuracy.item())


# --- put together over seeds ---------------------------------------------------------------


def test_seeds_that_lack_of_a_part_are_named(tmp_path: Path) -> None:
    study = small_study(lines={"points": 2}, rays={"points": 2, "directions": 1, "seeds": 1})
    store = made_up.write_study(tmp_path, study)
    made_up.survey(study, store, [1], ["lines"])
    found = gather(study, surveys(study, store, [0, 1]), "lines", [0, 1])
    assert found is not None
    assert (found.seeds, found.missing) == ([1], [0])
    assert set(found.tables["lines"]["seed"]) == {1}
    assert gather(study, surveys(study, store, [0, 1]), "rays", [0, 1]) is None
    made_up.survey(study, store, [0, 1], ["rays"])
    of_rays = gather(study, surveys(study, store, [0, 1]), "rays", [0, 1])
    assert of_rays is not None
    assert (of_rays.seeds, of_rays.missing) == ([0], [])  # it looks at no more


def test_tables_over_seeds_keep_each_seeds_rows_in_order(tmp_path: Path) -> None:
    study = small_study(lines={"points": 2}, sharpness={"steps": 1, "starts": 1, "seeds": 2})
    store = made_up.write_study(tmp_path, study)
    made_up.survey(study, store, [0, 1], ["lines", "sharpness"])
    records = [
        record
        for part in (PARTS[0], PARTS[4])
        for seed in (0, 1)
        if (record := store.find_landscape(part, seed))
    ]
    found = tables_over_seeds(records)
    assert found.keys() == {"lines", "sharpness"}
    for record in records:
        (table,) = record.tables.values()
        whole_table = found[record.part]
        assert whole_table.columns[0] == "seed"
        own = whole_table[whole_table["seed"] == record.seed].drop(columns="seed")
        pd.testing.assert_frame_equal(own.reset_index(drop=True), table)
