"""The landscape against closed forms and autograd's full Hessian."""

import itertools
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from swabench.analysis.surveys import gather, surveys, tables_by_seed
from swabench.landscape.geometry import (
    Loss,
    Slice,
    evaluate,
    hessian_products,
    hessian_trace,
    largest_eigenvalue,
    positions,
    random_directions,
    sharpness,
)
from swabench.landscape.survey import head_score, missing_parts, unsurveyable
from swabench.records import RecordStore
from swabench.study.landscape import LineSettings
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.system.errors import InputError
from swabench.training.heads import initial_head
from swabench.training.learner import Split
from tests.made_up_runs import CLASSES, FEATURES, SIZE, small_study, surveyor, write_runs


def quadratic(matrix: Tensor) -> Loss:
    return lambda weights: 0.5 * ((weights @ matrix) * weights).sum(1)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def a_matrix(size: int, seed: int = 0) -> Tensor:
    root = torch.from_numpy(generator(seed).standard_normal((size, size)))
    return root @ root.T / size


@pytest.fixture(scope="module")
def split() -> Split:
    rng = generator(1)
    labels = torch.from_numpy(np.arange(240) % CLASSES)
    inputs = torch.from_numpy(rng.standard_normal((240, FEATURES))) + labels[:, None]
    return Split(inputs, labels)


@pytest.fixture(scope="module")
def weights() -> Tensor:
    return initial_head(FEATURES, CLASSES, 3).double()


def softmax_loss(split: Split) -> Loss:
    score = head_score(split, CLASSES)
    return lambda weights: score(weights)[1]


def full_hessian(split: Split, weights: Tensor) -> Tensor:
    """autograd's, on a loss written with torch.nn.functional alone."""

    def loss(flat: Tensor) -> Tensor:
        matrix = flat[: CLASSES * FEATURES].view(CLASSES, FEATURES)
        logits = split.inputs @ matrix.T + flat[CLASSES * FEATURES :]
        return torch.nn.functional.cross_entropy(logits, split.labels)

    return cast(Tensor, torch.func.hessian(loss)(weights))


# --- slices --------------------------------------------------------------------------------


def test_a_line_passes_through_both_ends_in_the_stated_direction() -> None:
    start, end = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])
    points = Slice.line(start, end).at(np.array([[0.0], [1.0], [2.0], [-1.0]]))
    assert points.tolist() == [[1, 2], [3, -2], [5, -6], [-1, 6]]


@given(
    st.floats(-5, 0).map(lambda x: round(x, 2)),
    st.floats(1, 5).map(lambda x: round(x, 2)),
    st.integers(2, 60),
)
def test_positions_are_sorted_and_hold_both_ends(low: float, high: float, points: int) -> None:
    found = positions(low, high, points)
    assert {0.0, 1.0, low, high} <= set(found)
    assert np.all(np.diff(found) > 1e-9)
    assert points <= len(found) <= points + 2


def test_the_papers_positions() -> None:
    found = positions(-3, 3, 31)
    assert len(found) == 31
    np.testing.assert_allclose(np.diff(found), 0.2)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_a_plane_is_orthonormal_and_holds_its_three_weights(seed: int) -> None:
    corners = torch.from_numpy(generator(seed).standard_normal((3, 7)))
    plane = Slice.plane(*corners)
    torch.testing.assert_close(plane.basis @ plane.basis.T, torch.eye(2, dtype=torch.float64))
    coordinates = plane.coordinates(corners)
    torch.testing.assert_close(plane.at(coordinates), corners)
    np.testing.assert_allclose(coordinates[0], 0, atol=1e-12)
    np.testing.assert_allclose(coordinates[1], [(corners[1] - corners[0]).norm(), 0], atol=1e-12)


def test_projection_on_a_plane_leaves_a_rest_at_right_angles() -> None:
    corners = torch.from_numpy(generator(5).standard_normal((4, 9)))
    plane = Slice.plane(*corners[:3])
    rest = corners[3:] - plane.at(plane.coordinates(corners[3:]))
    torch.testing.assert_close(rest @ plane.basis.T, torch.zeros(1, 2, dtype=torch.float64))


def test_no_plane_through_one_line() -> None:
    with pytest.raises(ValueError, match="one line"):
        Slice.plane(torch.zeros(3), torch.ones(3), 2 * torch.ones(3))


def test_directions_are_unit_and_belong_to_the_generator() -> None:
    first, again, other = (random_directions(10, 50, generator(seed)) for seed in (0, 0, 1))
    torch.testing.assert_close(first.norm(dim=1), torch.ones(10))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_evaluate_is_the_score_point_by_point(split: Split, weights: Tensor) -> None:
    line = Slice.line(weights, initial_head(FEATURES, CLASSES, 4).double())
    alphas = positions(-1, 2, 10)[:, None]
    accuracies, losses = evaluate(head_score(split, CLASSES), line, alphas, at_once=3)
    for alpha, accuracy, loss in zip(alphas[:, 0], accuracies, losses, strict=True):
        flat = (1 - alpha) * line.origin + alpha * (line.origin + line.basis[0])
        layer = torch.nn.Linear(FEATURES, CLASSES).double()
        torch.nn.utils.vector_to_parameters(flat, layer.parameters())
        logits = layer(split.inputs)
        expected = torch.nn.functional.cross_entropy(logits, split.labels).item()
        assert loss == pytest.approx(expected, rel=1e-12)
        right = (logits.argmax(1) == split.labels).double().mean().item()
        assert accuracy == pytest.approx(100 * right)


# --- sharpness -----------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(1e-4, 1.0))
def test_sharpness_of_a_separable_quadratic(seed: int, epsilon: float) -> None:
    rng = generator(seed)
    curvature = torch.from_numpy(rng.uniform(0.1, 3, 6))
    centres = torch.from_numpy(rng.standard_normal((2, 6)))
    found = sharpness(quadratic(torch.diag(curvature)), centres, epsilon, rng)
    reach = centres.abs() + epsilon * (centres.abs() + 1)
    highest = 0.5 * (curvature * reach**2).sum(1)
    loss = 0.5 * (curvature * centres**2).sum(1)
    np.testing.assert_allclose(found.highest, highest, rtol=1e-12)
    np.testing.assert_allclose(found.percent, 100 * (highest - loss) / (1 + loss), rtol=1e-9)


def test_sharpness_sees_a_minimum_where_the_gradient_is_zero() -> None:
    found = sharpness(
        quadratic(torch.eye(4).double()), torch.zeros(1, 4).double(), 0.1, generator()
    )
    assert found.highest[0] == pytest.approx(0.5 * 4 * 0.1**2)


def test_sharpness_of_softmax_regression_reaches_the_best_corner(
    split: Split, weights: Tensor
) -> None:
    few = Split(split.inputs[:, :2], split.labels)
    centre = initial_head(2, CLASSES, 0).double().unsqueeze(0)
    loss = softmax_loss(few)
    radius = 0.05 * (centre.abs() + 1)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=centre.shape[1]))).double()
    best = loss(centre + radius * signs).max().item()
    found = sharpness(loss, centre, 0.05, generator(), starts=8)
    assert found.highest[0] == pytest.approx(best, rel=1e-9)


# --- curvature -----------------------------------------------------------------------------


def test_hessian_products_equal_the_full_hessian(split: Split, weights: Tensor) -> None:
    hessian = full_hessian(split, weights)
    found = hessian_products(softmax_loss(split), weights, torch.eye(SIZE).double())
    torch.testing.assert_close(found, hessian, rtol=1e-10, atol=1e-12)


def test_largest_eigenvalue_of_softmax_regression(split: Split, weights: Tensor) -> None:
    expected = torch.linalg.eigvalsh(full_hessian(split, weights))[-1].item()
    found = largest_eigenvalue(softmax_loss(split), weights, generator())
    assert found == pytest.approx(expected, rel=0.01)
    # In single precision, too, as studies run it.
    single = Split(split.inputs.float(), split.labels)
    found = largest_eigenvalue(softmax_loss(single), weights.float(), generator())
    assert found == pytest.approx(expected, rel=0.01)


def test_largest_eigenvalue_of_a_quadratic() -> None:
    matrix = a_matrix(12)
    found = largest_eigenvalue(quadratic(matrix), torch.ones(12).double(), generator())
    assert found == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-3)


def test_trace_of_softmax_regression_equals_its_closed_form(split: Split, weights: Tensor) -> None:
    # tr H = mean over images of (1 + |x|²) Σ p(1 − p).
    matrix = weights[: CLASSES * FEATURES].view(CLASSES, FEATURES)
    p = (split.inputs @ matrix.T + weights[CLASSES * FEATURES :]).softmax(1)
    expected = ((1 + split.inputs.square().sum(1)) * (p * (1 - p)).sum(1)).mean().item()
    assert expected == pytest.approx(full_hessian(split, weights).trace().item(), rel=1e-10)
    found = hessian_trace(softmax_loss(split), weights, generator(), probes=8000, at_once=500)
    assert found.value == pytest.approx(expected, rel=0.01)
    assert abs(found.value - expected) < 4 * found.standard_error


def test_trace_is_exact_where_the_hessian_is_diagonal() -> None:
    diagonal = torch.tensor([1.0, 2.0, 4.0]).double()
    found = hessian_trace(quadratic(torch.diag(diagonal)), torch.zeros(3).double(), generator())
    assert found.value == pytest.approx(7)
    assert found.standard_error == pytest.approx(0, abs=1e-12)


def test_the_traces_standard_error_is_the_spread_of_its_estimates() -> None:
    loss, at = quadratic(a_matrix(8)), torch.zeros(8).double()
    found = [hessian_trace(loss, at, generator(seed), probes=16) for seed in range(300)]
    spread = np.std([estimate.value for estimate in found], ddof=1)
    stated = np.sqrt(np.mean([estimate.standard_error**2 for estimate in found]))
    assert stated == pytest.approx(spread, rel=0.15)


# --- settings, survey, records -------------------------------------------------------------


def test_lines_must_span_both_ends() -> None:
    with pytest.raises(ValidationError, match="must reach from 0 to 1"):
        LineSettings(low=0.5)


def test_the_planes_method_must_average() -> None:
    study = load_study("smoke").model_dump()
    study["landscape"]["plane"]["method"] = "sgd"
    with pytest.raises(ValidationError, match=r"landscape\.plane\.method: 'sgd'"):
        Study.model_validate(study)


def test_a_survey_is_recorded_part_by_part_and_found_again(tmp_path: Path, split: Split) -> None:
    study = small_study()
    store = RecordStore(tmp_path, study)
    write_runs(store, study)
    missing = missing_parts(study, store, [0, 1])
    assert ("lines", 1) in missing
    assert ("plane", 1) not in missing
    measuring = surveyor(study, store, split)
    for part, seed in missing:
        tables = measuring.measure(part, seed)
        store.write_landscape(
            part, seed, tables, provenance={"data": {}}, environment={}, seconds=0
        )
        found = store.find_landscape(part, seed)
        assert found is not None
        for name, frame in tables.items():
            pd.testing.assert_frame_equal(found.tables[name], frame, check_dtype=False)
    assert missing_parts(study, store, [0, 1]) == []
    # Another grid is another plane, and leaves the lines as they are.
    changed = small_study(plane={"points": 5, "seeds": 1})
    assert missing_parts(changed, RecordStore(tmp_path, changed), [0, 1]) == [("plane", 0)]
    gathered = gather(study, store, "lines", [0, 1])
    assert gathered is not None
    assert gathered.seeds == [0, 1]
    lines = gathered.tables["lines"]
    assert set(lines["end"]) == {study.reference, *study.averaging_methods}
    by_seed = tables_by_seed(surveys(study, store, [0, 1]))
    assert by_seed.keys() == {0, 1}
    assert by_seed[0].keys() >= {"lines", "segments", "grid", "rays", "sharpness", "hessian"}
    assert by_seed[1].keys() == {"lines", "sharpness"}
    # All lines of a seed start at the same weights, and end at each method's.
    starts = lines[lines["alpha"] == 0].groupby(["seed", "split"])["loss"]
    assert starts.nunique().eq(1).all()
    ends = lines[(lines["alpha"] == 1) & (lines["end"] == "swa") & (lines["seed"] == 0)]
    record = store.find("swa", 0)
    assert record is not None
    flat = torch.tensor(record.arrays()["weights/average"])[None]
    _, expected = head_score(Split(split.inputs.float(), split.labels), CLASSES)(flat)
    np.testing.assert_allclose(ends["loss"], expected.item(), rtol=1e-5)


def test_an_altered_landscape_record_is_refused(tmp_path: Path, split: Split) -> None:
    study = small_study()
    store = RecordStore(tmp_path, study)
    write_runs(store, study)
    tables = surveyor(study, store, split).measure("sharpness", 0)
    store.write_landscape("sharpness", 0, tables, provenance={}, environment={}, seconds=0)
    (path,) = (store.folder / "landscape" / "sharpness").iterdir()
    path.write_text(path.read_text().replace("0.001", "0.002"))
    with pytest.raises(InputError, match="altered since it was written"):
        store.find_landscape("sharpness", 0)


def test_a_missing_run_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    study = small_study()
    store = RecordStore(tmp_path, study)
    write_runs(store, study, skip=("pswa", 1))
    assert "lacks runs (pswa at seed 1)" in unsurveyable(study, store, [0, 1])


def test_a_study_of_more_than_heads_is_refused_in_words(tmp_path: Path) -> None:
    study = small_study()
    network = study.model_copy(
        update={"finetune": study.finetune.model_copy(update={"trainable": "layer4"})}
    )
    reason = unsurveyable(network, RecordStore(tmp_path, network), [0])
    assert "needs `finetune.trainable: head`" in reason


@pytest.mark.parametrize("reference", ["adam", "swa", "pswa", "sgd"])
def test_whatever_the_reference_every_part_is_measured_or_left_out(
    tmp_path: Path, split: Split, reference: str
) -> None:
    study = small_study().model_copy(update={"reference": reference})
    store = RecordStore(tmp_path, study)
    write_runs(store, study)
    measuring = surveyor(study, store, split)
    parts = {part for part, _ in missing_parts(study, store, [0, 1])}
    assert ("plane" in parts) == (reference != "adam")
    for part in parts:
        assert measuring.measure(part, 0)
