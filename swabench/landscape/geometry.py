"""The loss around trained weights: slices through it, its sharpness, its curvature.

Everything here is a function of a loss over flat weight vectors, handed in by the caller: heads
on cached features, where hundreds of points are one matrix product, or a network that
re-estimates its BatchNorm at every point. Nothing trains. Shapes: K points, P weights, d
dimensions of a slice.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

Loss = Callable[[Tensor], Tensor]
"""Losses, shape (K,), at flat weights (K, P); each row's loss depends on that row alone."""

Score = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Accuracies in [0, 1] and losses in nats, shape (K,) each, at flat weights (K, P)."""

Floats = NDArray[np.float64]


# --- slices --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slice:
    """An affine subspace of weight space: w(c) = origin + c·basis.

    Attributes:
        origin: Shape (P,).
        basis: Shape (d, P), rows linearly independent.
    """

    origin: Tensor
    basis: Tensor

    @classmethod
    def line(cls, start: Tensor, end: Tensor) -> "Slice":
        """The line on which coordinate 0 is `start` and 1 is `end`, shape (P,) each."""
        return cls(start, (end - start).unsqueeze(0))

    @classmethod
    def plane(cls, origin: Tensor, second: Tensor, third: Tensor) -> "Slice":
        """The plane through three weights, shape (P,) each, with an orthonormal basis.

        The first axis runs from `origin` to `second` (Izmailov et al. 2018, figure 1).

        Raises:
            ValueError: The three lie on one line.
        """
        along, across = second - origin, third - origin
        first = along / along.norm()
        rest = across - (across @ first) * first
        if not rest.norm() > 1e-6 * across.norm():
            raise ValueError("three weights on one line span no plane")
        return cls(origin, torch.stack([first, rest / rest.norm()]))

    @classmethod
    def ray(cls, origin: Tensor, direction: Tensor) -> "Slice":
        """The ray from `origin`, shape (P,); a coordinate is a distance if `direction` is unit."""
        return cls(origin, direction.unsqueeze(0))

    def at(self, coordinates: Floats) -> Tensor:
        """Weights, shape (K, P), at coordinates (K, d)."""
        moved = torch.from_numpy(coordinates).to(self.basis) @ self.basis
        return self.origin + moved

    def coordinates(self, weights: Tensor) -> Floats:
        """Coordinates (K, d) of the points of the slice nearest to weights (K, P)."""
        offsets = (weights - self.origin).cpu().double().T
        nearest = torch.linalg.lstsq(self.basis.cpu().double().T, offsets).solution
        return np.asarray(nearest.T.cpu().numpy(), dtype=np.float64)


def positions(low: float, high: float, points: int) -> Floats:
    """Evenly spaced values from low to high, with 0 and 1 always among them."""
    # Rounded, so that 0.2 · 5 is 1 and not its neighbour.
    spaced = np.linspace(low, high, points).round(12) + 0.0
    return np.union1d(spaced, [0.0, 1.0])


def random_directions(count: int, parameters: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """Directions of unit norm, uniform on the sphere, one by one: float32, shape (parameters,)."""
    for _ in range(count):
        drawn = rng.standard_normal((1, parameters))
        unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        yield torch.from_numpy(unit[0].astype(np.float32))


def points_at_once(parameters: int) -> int:
    """How many weights of so many parameters to look at together: what bounds the memory."""
    return min(32, max(1, 2**26 // parameters))


@torch.no_grad()
def evaluate(
    score: Score, where: Slice, coordinates: Floats, *, at_once: int | None = None
) -> tuple[Floats, Floats]:
    """Accuracy in percent and loss in nats at points of a slice.

    Args:
        score: What to evaluate.
        where: The slice.
        coordinates: Points on it, shape (K, d).
        at_once: Points a call of `score`; by default as many as fit into memory.

    Returns:
        Two arrays of shape (K,).
    """
    at_once = at_once or points_at_once(len(where.origin))
    parts = np.array_split(coordinates, range(at_once, len(coordinates), at_once))
    found = [torch.stack(score(where.at(part))).cpu().double().numpy() for part in parts]
    accuracies, losses = np.concatenate(found, axis=1)
    return 100 * accuracies, losses


# --- sharpness -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Sharpness:
    """How far the loss rises in a box around the weights.

    Attributes:
        loss: At the weights, shape (K,).
        highest: The highest loss found in the box, shape (K,).
    """

    loss: Floats
    highest: Floats

    @property
    def percent(self) -> Floats:
        """Keskar's φ = 100·(highest − loss) / (1 + loss), shape (K,)."""
        return 100 * (self.highest - self.loss) / (1 + self.loss)


def sharpness(
    loss: Loss,
    weights: Tensor,
    epsilon: float,
    rng: np.random.Generator,
    *,
    starts: int = 2,
    steps: int = 20,
) -> Sharpness:
    """Keskar's sharpness (Keskar et al. 2017, arXiv 1609.04836, metric 2.1) in the full space.

    The maximum is sought over the box |Δᵢ| ≤ ε(|wᵢ| + 1) by conditional-gradient ascent with
    full steps: each goes to the corner of the box that the gradient points to. Where the loss
    is convex (softmax regression is) its maximum lies at a corner, no step loses height, and
    the ascent ends at a corner from which no corner looks higher to first order. Elsewhere the
    highest point met counts. Either way it is a lower bound, as that of the paper's ten
    iterations of L-BFGS-B is. All K ascents run in lockstep.

    Args:
        loss: What to maximise; differentiable.
        weights: Centres of the boxes, shape (K, P).
        epsilon: Size of the box.
        rng: Draws the starts after the first, which is the centre; the same for all K.
        starts: Ascents, of which the highest counts.
        steps: Most steps of an ascent.
    """
    radius = epsilon * (weights.abs() + 1)
    start, gradient = _value_and_gradient(loss, weights)
    highest = _ascend(loss, weights, radius, gradient, steps)
    for _ in range(starts - 1):
        where = torch.from_numpy(rng.uniform(-1, 1, weights.shape[1])).to(weights)
        _, gradient = _value_and_gradient(loss, weights + where * radius)
        highest = torch.maximum(highest, _ascend(loss, weights, radius, gradient, steps))
    # The centre lies in the box, too.
    highest = torch.maximum(highest, start)
    return Sharpness(start.numpy(), highest.numpy())


def _ascend(loss: Loss, centre: Tensor, radius: Tensor, gradient: Tensor, steps: int) -> Tensor:
    """The highest losses, shape (K,), met on the way from corner to corner."""
    highest = torch.full((len(gradient),), -torch.inf, dtype=torch.float64)
    for _ in range(steps):
        value, gradient = _value_and_gradient(loss, centre + radius * gradient.sign())
        if not bool((value > highest).any()):
            break
        highest = torch.maximum(highest, value)
    return highest


def _value_and_gradient(loss: Loss, weights: Tensor) -> tuple[Tensor, Tensor]:
    point = weights.detach().requires_grad_()
    values = loss(point)
    (gradient,) = torch.autograd.grad(values.sum(), point)
    return values.detach().cpu().double(), gradient  # in this order: MPS has no float64


# --- curvature -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Trace:
    """An estimate of the Hessian's trace and its standard error."""

    value: float
    standard_error: float


def hessian_products(loss: Loss, weights: Tensor, vectors: Tensor) -> Tensor:
    """Products of the Hessian at `weights`, shape (P,), with vectors (K, P); shape (K, P)."""
    points = weights.detach().expand(len(vectors), -1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(points).sum(), points, create_graph=True)
    (products,) = torch.autograd.grad(gradient, points, grad_outputs=vectors)
    return products


def largest_eigenvalue(
    loss: Loss, weights: Tensor, rng: np.random.Generator, *, tolerance: float = 1e-3
) -> float:
    """The Hessian's largest eigenvalue at `weights`, shape (P,), by Lanczos (ARPACK).

    Args:
        loss: Twice differentiable.
        weights: Where.
        rng: Draws the starting vector.
        tolerance: Relative accuracy at which the iteration stops.
    """
    size = len(weights)

    def product(vector: Floats) -> Floats:
        row = torch.from_numpy(vector.reshape(1, -1)).to(weights)
        found = hessian_products(loss, weights, row)
        return np.asarray(found.cpu().double().numpy()[0], dtype=np.float64)

    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    (value,) = eigsh(
        operator,
        k=1,
        which="LA",
        v0=rng.standard_normal(size),
        tol=tolerance,
        return_eigenvectors=False,
    )
    return float(value)


def hessian_trace(
    loss: Loss,
    weights: Tensor,
    rng: np.random.Generator,
    *,
    probes: int = 64,
    at_once: int | None = None,
) -> Trace:
    """The Hessian's trace at `weights`, shape (P,), by Hutchinson's estimator.

    The mean of vᵀHv over vectors v of random signs (Hutchinson 1990), which has the trace for
    its expectation and the least variance among independent entries.

    Args:
        loss: Twice differentiable.
        weights: Where.
        rng: Draws the signs.
        probes: Number of vectors, at least 2.
        at_once: Vectors a product; by default as many as fit into memory, and 16 at most.
    """
    at_once = at_once or min(16, points_at_once(len(weights)))
    estimates: list[float] = []
    while len(estimates) < probes:
        count = min(at_once, probes - len(estimates))
        signs = rng.choice(np.array([-1.0, 1.0]), (count, len(weights)))
        vectors = torch.from_numpy(signs).to(weights)
        products = hessian_products(loss, weights, vectors)
        estimates += (vectors * products).cpu().double().sum(1).tolist()
    sample = np.array(estimates)
    return Trace(float(sample.mean()), float(sample.std(ddof=1) / np.sqrt(probes)))
