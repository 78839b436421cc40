from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import resnet50

from swabench.training import convolution
from swabench.training.backbone import Preprocess
from swabench.training.convolution import NarrowConv2d, lay_out, memory_format, narrow_convolutions


@given(
    st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(1, 3),
    st.booleans(),
)  # fmt: skip
def test_equals_torchs_convolution_and_gradient_at_every_size(
    height: int, width: int, kernel: int, padding: int, stride: int, bias: bool
) -> None:
    if min(height, width) + 2 * padding < kernel:
        return
    ours = NarrowConv2d(3, 4, kernel, stride, padding, bias=bias, dtype=torch.float64)
    theirs = nn.Conv2d(3, 4, kernel, stride, padding, bias=bias, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    inputs = torch.randn(2, 3, height, width, dtype=torch.float64)
    found, expected = ours(inputs), theirs(inputs)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_one_pixel_is_a_matrix_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Conv2d, "forward", None)
    assert NarrowConv2d(3, 4, 3, padding=1)(torch.randn(2, 3, 1, 1)).shape == (2, 4, 1, 1)
    assert NarrowConv2d(3, 4, 3, 2, padding=1)(torch.randn(2, 3, 2, 2)).shape == (2, 4, 1, 1)


def test_a_network_keeps_its_names_and_values() -> None:
    network = resnet50()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    narrow_convolutions(network)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", torch.channels_last),
        ("cuda", torch.channels_last),
        ("mps", torch.contiguous_format),
    ],
)
def test_channels_come_last_but_on_mps(device: str, expected: torch.memory_format) -> None:
    assert memory_format(torch.device(device)) == expected


def test_weights_are_laid_out_for_the_device() -> None:
    layer = nn.Conv2d(3, 4, 3)
    lay_out(layer, torch.device("cpu"))
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("devices", [set(), {"cpu"}])
def test_images_are_laid_out_for_the_device(
    devices: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "CHANNELS_FIRST", devices)
    images = Preprocess(8, ((0.1,), (0.3,)))(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    assert images.is_contiguous(memory_format=torch.channels_last) == (not devices)


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 3},
        {"dilation": 2, "padding": 2},
        {"dilation": 2, "padding": 2, "stride": 3},
        {"padding": "same"},
        {"padding": 3},  # the only window of a small map may lie beside it
        {"padding": 4, "stride": 9},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_other_kinds_of_convolution_are_left_to_torch(options: dict[str, Any], size: int) -> None:
    ours = NarrowConv2d(3, 6, 3, dtype=torch.float64, **{"padding": 1, **options})
    theirs = nn.Conv2d(3, 6, 3, dtype=torch.float64, **{"padding": 1, **options})
    theirs.load_state_dict(ours.state_dict())
    inputs = torch.randn(2, 3, size, size, dtype=torch.float64)
    torch.testing.assert_close(ours(inputs), theirs(inputs))


def test_weights_are_left_channels_first_where_maps_must_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convolution, "CHANNELS_FIRST", {"cpu"})
    layer = nn.Conv2d(3, 4, 3)
    lay_out(layer, torch.device("cpu"))
    assert layer.weight.is_contiguous()
    assert not layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_every_convolution_of_a_network_is_one_of_these() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU()))
    narrow_convolutions(network)
    assert [type(each) for each in network.modules() if isinstance(each, nn.Conv2d)] == [
        NarrowConv2d,
        NarrowConv2d,
    ]
