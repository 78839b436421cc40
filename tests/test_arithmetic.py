"""Where numbers are summed up, in which format, and from which random numbers heads are drawn."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from swabench.training.batchnorm import _Moments
from swabench.training.heads import initial_head
from swabench.training.learner import accuracy_and_loss, log_probabilities


class OnMps(Tensor):
    """Stands for a tensor on MPS: there is no float64."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("mps")

    def double(self) -> Tensor:
        raise TypeError("MPS has no float64")

    def to(self, *arguments: Any, **_: Any) -> Tensor:
        away = any(str(argument) == "cpu" for argument in arguments)
        return self.as_subclass(Tensor) if away else self


def made_up(images: int = 9_999, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, images, classes, generator=generator) * 3
    return logits, torch.randint(classes, (images,), generator=generator)


def test_losses_and_accuracies_are_summed_up_in_float64() -> None:
    """In float32 the digits that methods differ in would be gone on ten thousand images."""
    logits, labels = made_up()
    found = log_probabilities(logits)
    torch.testing.assert_close(found, logits.log_softmax(-1))
    assert found.is_contiguous()  # as it is kept in records
    accuracy, loss = accuracy_and_loss(found, labels)
    picked = found.numpy()[:, np.arange(len(labels)), labels.numpy()].astype(np.float64)
    np.testing.assert_allclose(loss.numpy(), -picked.mean(1), rtol=1e-13)
    right = (found.numpy().argmax(-1) == labels.numpy()).mean(1)
    np.testing.assert_allclose(accuracy.numpy(), right, rtol=1e-15)
    assert accuracy.dtype == loss.dtype == torch.float64


def test_on_mps_the_cpu_sums_up() -> None:
    logits, labels = made_up(50)
    found = log_probabilities(logits)
    with pytest.raises(TypeError):
        found.as_subclass(OnMps).double()
    there = accuracy_and_loss(found.as_subclass(OnMps), labels.as_subclass(OnMps))
    for ours, expected in zip(there, accuracy_and_loss(found, labels), strict=True):
        assert torch.equal(ours, expected)


def test_on_mps_batchnorm_is_measured_without_float64() -> None:
    layer = nn.BatchNorm1d(3)
    assert _Moments(layer)._mean.dtype == torch.float64
    layer._buffers["running_mean"] = torch.zeros(3).as_subclass(OnMps)
    assert _Moments(layer)._mean.dtype == torch.float32


def test_a_seeds_head_is_torchs_own_and_leaves_other_draws_alone() -> None:
    torch.manual_seed(7)
    layer = nn.Linear(6, 4)
    expected = torch.cat([layer.weight.detach().flatten(), layer.bias.detach()])
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert torch.equal(initial_head(6, 4, 7), expected)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(initial_head(6, 4, 8), expected)
