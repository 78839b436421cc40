"""The landscape against closed forms and autograd's full Hessian."""

import itertools
import shutil
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
from swabench.data.splits import stratified_split
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
from swabench.landscape.parts import missing_parts, unsurveyable
from swabench.landscape.survey import head_score
from swabench.records import RecordStore
from swabench.study.landscape import PARTS, LineSettings, Part
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.system.errors import InputError
from swabench.training.heads import initial_head
from swabench.training.learner import Split
from tests import made_up
from tests.made_up import (
    CLASSES,
    FEATURES,
    WEIGHTS,
    record_of,
    small_study,
    write_run,
    write_study,
)


def quadratic(matrix: Tensor) -> Loss:
    return lambda weights: 0.5 * ((weights @ matrix) * weights).sum(1)


def generator(seed: int | list[int] = 0) -> np.random.Generator:
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


def directions_of(count: int, parameters: int, rng: np.random.Generator) -> Tensor:
    return torch.stack([*random_directions(count, parameters, rng)])


def test_directions_are_unit_and_belong_to_the_generator() -> None:
    first, again, other = (directions_of(10, 50, generator(seed)) for seed in (0, 0, 1))
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


def test_the_highest_point_of_the_box_may_be_its_centre() -> None:
    """From there a step leads downhill, to whatever corner."""

    def hill(weights: Tensor) -> Tensor:
        return (0.01 * weights - weights.square()).sum(1) + 3

    found = sharpness(hill, torch.zeros(1, 4).double(), 0.5, generator())
    assert (found.highest[0], found.percent[0]) == (3, 0)


def test_ascents_start_in_all_of_the_box() -> None:
    """The gradient at the centre points away from the higher side, and a half of the box too."""

    def roof(weights: Tensor) -> Tensor:
        return (0.1 * weights + 2 * torch.relu(-weights - 0.2)).sum(1)

    centre = torch.zeros(1, 1).double()
    assert sharpness(roof, centre, 1.0, generator(), starts=1).highest[0] == pytest.approx(0.1)
    found = sharpness(roof, centre, 1.0, generator(), starts=20)
    assert found.highest[0] == pytest.approx(2 * 0.8 - 0.1)


def test_an_ascent_takes_as_many_steps_as_it_may() -> None:
    """Each step leads to the corner that the step before made look higher."""

    def coupled(weights: Tensor) -> Tensor:
        following = weights[:, :-1] * weights[:, 1:]
        return weights[:, 0] + 3 * following.sum(1)

    centre = torch.tensor([[0.0, -0.001, -0.001]]).double()
    corners = torch.tensor([[1, -1.002, -1.002], [-1, -1.002, -1.002]]).double()
    for steps, reached in ((1, 0), (2, 1), (9, 1)):
        found = sharpness(coupled, centre, 1.0, generator(), starts=1, steps=steps).highest[0]
        assert found == pytest.approx(coupled(corners[[reached]]).item())


# --- curvature -----------------------------------------------------------------------------


def test_hessian_products_equal_the_full_hessian(split: Split, weights: Tensor) -> None:
    hessian = full_hessian(split, weights)
    found = hessian_products(softmax_loss(split), weights, torch.eye(WEIGHTS).double())
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


def test_the_largest_eigenvalue_is_not_the_farthest_from_zero() -> None:
    """Of a saddle the steepest way may lead down."""
    diagonal = torch.tensor([-9.0, -1.0, 0.5, 2.0, 3.0]).double()
    found = largest_eigenvalue(quadratic(torch.diag(diagonal)), torch.ones(5).double(), generator())
    assert found == pytest.approx(3, rel=1e-3)


def test_a_looser_tolerance_takes_fewer_products() -> None:
    matrix, products = a_matrix(300), []

    def counted(weights: Tensor) -> Tensor:
        products.append(len(weights))
        return quadratic(matrix)(weights)

    counts = []
    for tolerance in (0.5, 1e-10):
        products.clear()
        largest_eigenvalue(counted, torch.ones(300).double(), generator(), tolerance=tolerance)
        counts.append(len(products))
    assert counts[0] < counts[1]


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


def test_the_trace_takes_as_many_probes_as_it_was_asked_for() -> None:
    """However many are multiplied at once, also where that does not divide their number."""
    loss, at = quadratic(a_matrix(8)), torch.zeros(8).double()
    whole = hessian_trace(loss, at, generator(), probes=10, at_once=10)
    parts = hessian_trace(loss, at, generator(), probes=10, at_once=4)
    assert (parts.value, parts.standard_error) == pytest.approx(
        (whole.value, whole.standard_error), rel=1e-12
    )


# --- settings, survey, records -------------------------------------------------------------


def test_lines_must_span_both_ends() -> None:
    with pytest.raises(ValidationError, match="must reach from 0 to 1"):
        LineSettings(low=0.5)


def test_the_planes_method_must_average() -> None:
    study = load_study("smoke").model_dump()
    study["landscape"]["plane"]["method"] = "sgd"
    with pytest.raises(ValidationError, match=r"plane\.method: unknown averaging method 'sgd'"):
        Study.model_validate(study)


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, RecordStore]:
    """The small study with everything measured that it asks for."""
    study = small_study()
    store = write_study(tmp_path_factory.mktemp("results"), study)
    made_up.survey(study, store, study.seeds)
    return study, store


def table_of(store: RecordStore, part: Part, seed: int, name: str | None = None) -> pd.DataFrame:
    found = store.find_landscape(part, seed)
    assert found is not None
    return found.tables[name or part]


def weights_of(store: RecordStore, method: str, seed: int) -> Tensor:
    """What a method hands over, in float64."""
    record = record_of(store, method, seed)
    return torch.tensor(record.arrays()[f"weights/{record.result}"]).double()


def accuracy_and_loss(weights: Tensor, split: str, rows: Tensor | None = None) -> list[float]:
    """Of a head on its split, in percent and nats, by torch.nn alone."""
    data = made_up.splits(torch.float64)[split]  # type: ignore[index]
    inputs, labels = data.inputs, data.labels
    if rows is not None:
        inputs, labels = inputs[rows], labels[rows]
    layer = torch.nn.Linear(FEATURES, CLASSES).double()
    torch.nn.utils.vector_to_parameters(weights, layer.parameters())
    scores = layer(inputs)
    right = (scores.argmax(1) == labels).double().mean()
    return [100 * right.item(), torch.nn.functional.cross_entropy(scores, labels).item()]


def drawn_rows(study: Study) -> Tensor:
    """The training images of which the landscape takes the loss."""
    labels = made_up.splits()["train"].labels.numpy()
    count, seed = study.landscape.training_images, study.landscape.seed
    assert count < len(labels)
    return torch.from_numpy(stratified_split(labels, count, seed)[1])


def check_points(study: Study, table: pd.DataFrame, places: Tensor) -> None:
    """Each row of a table holds what its place gives on the images of its split."""
    assert set(table["split"]) == {"train", "test"}
    for (_, row), place in zip(table.iterrows(), places, strict=True):
        rows = drawn_rows(study) if row["split"] == "train" else None
        expected = accuracy_and_loss(place, row["split"], rows)
        np.testing.assert_allclose([row["accuracy"], row["loss"]], expected, rtol=1e-4)


def test_a_survey_is_recorded_part_by_part_and_found_again(tmp_path: Path) -> None:
    study = small_study()
    store = write_study(tmp_path, study)
    missing = missing_parts(study, store, [0, 1])
    assert ("lines", 1) in missing
    assert ("plane", 1) not in missing
    made_up.survey(study, store, [0, 1])
    measuring = made_up.surveyor(study, store)
    for part, seed in missing:
        found = store.find_landscape(part, seed)
        assert found is not None
        assert (found.part, found.seed) == (part, seed)
        for name, frame in measuring.measure(part, seed).items():
            pd.testing.assert_frame_equal(found.tables[name], frame, check_dtype=False)
    assert missing_parts(study, store, [0, 1]) == []
    # Another grid is another plane, and leaves the lines as they are.
    changed = small_study(plane={"points": 5, "seeds": 1})
    assert missing_parts(changed, RecordStore(tmp_path, changed), [0, 1]) == [("plane", 0)]


def test_seeds_are_gathered_each_with_its_own(surveyed: tuple[Study, RecordStore]) -> None:
    study, store = surveyed
    gathered = gather(study, surveys(study, store, [0, 1]), "lines", [0, 1])
    assert gathered is not None
    assert gathered.seeds == [0, 1]
    for seed in (0, 1):
        lines = gathered.tables["lines"]
        own = lines[lines["seed"] == seed].drop(columns="seed").reset_index(drop=True)
        pd.testing.assert_frame_equal(own, table_of(store, "lines", seed))
    by_seed = tables_by_seed(surveys(study, store, [0, 1]))
    assert by_seed.keys() == {0, 1}
    assert by_seed[0].keys() >= {"lines", "segments", "grid", "rays", "sharpness", "hessian"}
    assert by_seed[1].keys() == {"lines", "rays", "sharpness"}
    for seed, tables in by_seed.items():
        pd.testing.assert_frame_equal(tables["lines"], table_of(store, "lines", seed))


@pytest.mark.parametrize(("part", "first"), [("lines", "adam"), ("segments", "sgd")])
def test_lines_lead_from_one_result_to_another_on_both_splits(
    surveyed: tuple[Study, RecordStore], part: Part, first: str
) -> None:
    study, store = surveyed
    for seed in study.landscape_seeds(part, study.seeds):
        table = table_of(store, part, seed)
        assert set(table["start"]) == {first}
        assert list(dict.fromkeys(table["end"])) == list(study.landscape_rows(part)[1:])
        start = weights_of(store, first, seed)
        ends = {name: weights_of(store, name, seed) for name in set(table["end"])}
        rows = table.to_dict(orient="records")
        places = [start + row["alpha"] * (ends[row["end"]] - start) for row in rows]
        check_points(study, table, torch.stack(places))


def test_the_plane_is_measured_on_both_splits(surveyed: tuple[Study, RecordStore]) -> None:
    study, store = surveyed
    marks, grid = (table_of(store, "plane", 0, name) for name in ("marks", "grid"))
    assert list(marks["method"]) == ["adam", "sgd", "swa"]
    origin, second, third = (weights_of(store, name, 0) for name in marks["method"])
    # The plane's basis from its marks: what moves the origin to the other two.
    corners = torch.tensor(marks[["x", "y"]].to_numpy(copy=True))
    assert corners[0].tolist() == pytest.approx([0, 0], abs=1e-6)
    basis = torch.linalg.solve(corners[1:], torch.stack([second - origin, third - origin]))
    torch.testing.assert_close(basis @ basis.T, torch.eye(2).double(), rtol=1e-4, atol=1e-4)
    check_points(study, grid, origin + torch.tensor(grid[["x", "y"]].to_numpy(copy=True)) @ basis)
    # The ways are the iterates', whatever the method hands over, projected on the plane.
    paths = table_of(store, "plane", 0, "paths")
    assert list(dict.fromkeys(paths["method"])) == ["sgd", "swa"]
    for name, own in paths.groupby("method"):
        way = torch.tensor(record_of(store, str(name), 0).arrays()["trajectory"]).double()
        assert list(own["epoch"]) == list(range(study.finetune.epochs + 1))
        np.testing.assert_allclose(own[["x", "y"]], (way - origin) @ basis.T, rtol=1e-3, atol=1e-4)


def test_rays_are_as_long_as_they_say_and_the_same_for_all(
    surveyed: tuple[Study, RecordStore],
) -> None:
    study, store = surveyed
    settings = study.landscape.rays
    drawn = []
    for seed in (0, 1):
        rays = table_of(store, "rays", seed)
        assert sorted(set(rays["direction"])) == list(range(settings.directions))
        np.testing.assert_allclose(
            sorted(set(rays["distance"])), np.linspace(0, settings.length, settings.points)
        )
        # What draws the directions is the survey's own affair; here they are found by its rule.
        rng = generator([study.landscape.seed, seed, PARTS.index("rays")])
        directions = directions_of(settings.directions, WEIGHTS, rng).double()
        drawn.append(directions)
        ends = {name: weights_of(store, name, seed) for name in study.landscape_rows("rays")}
        assert set(rays["method"]) == ends.keys()
        places = [
            ends[row["method"]] + row["distance"] * directions[row["direction"]]
            for row in rays.to_dict(orient="records")
        ]
        check_points(study, rays, torch.stack(places))
    assert len(torch.cat(drawn).unique(dim=0)) == 2 * settings.directions


def test_sharpness_and_curvature_are_of_the_training_loss_of_each_result(
    surveyed: tuple[Study, RecordStore],
) -> None:
    study, store = surveyed
    rows = drawn_rows(study)
    train = made_up.splits(torch.float64)["train"]
    drawn = Split(train.inputs[rows], train.labels[rows])
    for seed in (0, 1):
        sharp = table_of(store, "sharpness", seed)
        expected = {
            name: accuracy_and_loss(weights_of(store, name, seed), "train", rows)[1]
            for name in study.row_names
        }
        assert set(sharp["method"]) == expected.keys()
        assert sorted(set(sharp["epsilon"])) == sorted(study.landscape.sharpness.epsilons)
        np.testing.assert_allclose(sharp["loss"], sharp["method"].map(expected), rtol=1e-4)
        assert (sharp["highest"] > sharp["loss"]).all()
    hessian = table_of(store, "hessian", 0)
    assert list(hessian["method"]) == list(study.row_names)
    for row in hessian.to_dict(orient="records"):
        full = full_hessian(drawn, weights_of(store, row["method"], 0))
        largest = torch.linalg.eigvalsh(full)[-1].item()
        assert row["largest_eigenvalue"] == pytest.approx(largest, rel=0.01)
        error = row["trace_standard_error"]
        assert row["trace"] == pytest.approx(full.trace().item(), abs=4 * error)


def test_curvature_is_probed_alike_whatever_methods_stand_before(
    surveyed: tuple[Study, RecordStore],
) -> None:
    study, store = surveyed
    methods = dict(reversed(study.methods.items()))
    turned = study.model_copy(update={"methods": methods})
    found, other = (
        made_up.surveyor(each, store).measure("hessian", 0)["hessian"].sort_values("method")
        for each in (study, turned)
    )
    assert list(found.index) != list(other.index)
    pd.testing.assert_frame_equal(found.reset_index(drop=True), other.reset_index(drop=True))


def test_runs_of_other_data_are_not_surveyed(tmp_path: Path) -> None:
    study = small_study()
    store = write_study(tmp_path, study, without=[("swa", 0)])
    write_run(store, study, "swa", 0, provenance={"data": {"images": "others"}})
    measuring = made_up.surveyor(study, store)
    for part in ("lines", "rays", "plane", "sharpness", "hessian"):
        with pytest.raises(InputError, match="other data"):
            measuring.measure(part, 0)
    assert measuring.measure("lines", 1)


def test_an_altered_landscape_record_is_refused(tmp_path: Path) -> None:
    study = small_study()
    store = write_study(tmp_path, study)
    made_up.survey(study, store, [0], ["sharpness"])
    (path,) = (store.folder / "landscape" / "sharpness").iterdir()
    path.write_text(path.read_text().replace("0.001", "0.002"))
    with pytest.raises(InputError, match="altered since it was written"):
        store.find_landscape("sharpness", 0)


def test_a_landscape_in_another_ones_place_is_refused(tmp_path: Path) -> None:
    study = small_study()
    store = write_study(tmp_path, study)
    made_up.survey(study, store, [0, 1], ["sharpness"])
    first, second = sorted((store.folder / "landscape" / "sharpness").iterdir())
    shutil.copyfile(first, second)
    with pytest.raises(InputError, match="seed 0, and lies where 1 belongs"):
        store.find_landscape("sharpness", 1)


def test_a_missing_run_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    study = small_study()
    store = write_study(tmp_path, study, without=[("pswa", 1)])
    assert "lacks runs (pswa at seed 1)" in unsurveyable(study, store, [0, 1])


def test_a_landscape_of_a_run_that_diverged_says_so_and_how_to_do_without(tmp_path: Path) -> None:
    study = small_study()
    store = write_study(tmp_path / "one", study, diverged={("pswa", 1): 2})
    assert unsurveyable(study, store, [0, 1]) == (
        "runs of study 'smoke' diverged and have no weights (pswa at seed 1 (loss not finite after "
        "epoch 2)); name the other rows in landscape.methods"
    )
    others = [name for name in study.row_names if name != "pswa"]
    landscape = study.landscape.model_copy(update={"methods": tuple(others)})
    assert unsurveyable(study.model_copy(update={"landscape": landscape}), store, [0, 1]) == ""
    assert store.find_landscape("lines", 1) is None
    store = write_study(tmp_path / "other", study, diverged={("sgd", 1): 2})  # the reference
    assert unsurveyable(study, store, [0, 1]).endswith(
        "(sgd at seed 1 (loss not finite after epoch 2))"
    )


@pytest.mark.parametrize(
    ("reference", "segments", "plane"),
    [
        ("sgd", ["swa", "swa-cyclical", "pswa"], ["adam", "sgd", "swa"]),
        ("adam", ["swa", "swa-cyclical", "pswa"], None),
        ("swa", ["swa-cyclical", "pswa"], ["adam", "swa", "swa-cyclical"]),
        ("pswa", ["swa", "swa-cyclical"], ["adam", "pswa", "swa"]),
    ],
)
def test_whatever_the_reference_every_part_is_measured_or_left_out(
    tmp_path: Path, reference: str, segments: list[str], plane: list[str] | None
) -> None:
    study = small_study().model_copy(update={"reference": reference})
    store = write_study(tmp_path, study)
    made_up.survey(study, store, [0])
    averages = ["swa", "swa-cyclical", "pswa"]
    others = [name for name in averages if name != reference]
    with_reference = list(dict.fromkeys([reference, *others]))
    expected: dict[tuple[Part, str], list[str] | None] = {
        ("lines", "end"): [name for name in with_reference if name != "adam"],
        ("segments", "end"): segments,
        ("rays", "method"): list(study.row_names),
        ("sharpness", "method"): list(study.row_names),
        ("hessian", "method"): list(study.row_names),
    }
    for (part, column), names in expected.items():
        assert list(dict.fromkeys(table_of(store, part, 0)[column])) == names, part
    assert set(table_of(store, "segments", 0)["start"]) == {reference}
    found = store.find_landscape("plane", 0)
    assert (found is None) == (plane is None)
    if found is not None:
        assert list(found.tables["marks"]["method"]) == plane
    for part in ("lines", "segments", "rays"):
        assert np.isfinite(table_of(store, part, 0)["loss"]).all()


def test_one_ascent_that_stalls_does_not_stop_the_others() -> None:
    """The first weights are at their corner at once; the second meet theirs a step later."""

    def saddle(weights: torch.Tensor) -> torch.Tensor:
        return 3 * weights[:, 0] * weights[:, 1] - weights[:, 0]

    weights = torch.tensor([[5.0, 5.0], [0.0, 0.0]], dtype=torch.float64)
    together, alone = (
        [
            sharpness(saddle, some, 0.5, np.random.default_rng(0), starts=1, steps=5).highest
            for some in several
        ]
        for several in ([weights], weights.split(1))
    )
    np.testing.assert_allclose(together[0], np.concatenate(alone))
    np.testing.assert_allclose(alone[1], [3 * 0.5**2 + 0.5])


def test_the_seeds_that_were_asked_for_are_looked_at() -> None:
    study = small_study(rays={"seeds": None}, sharpness={"seeds": 2})
    assert study.landscape_seeds("rays", [7, 8, 9]) == [7, 8, 9]
    assert study.landscape_seeds("sharpness", [7, 8, 9]) == [7, 8]
