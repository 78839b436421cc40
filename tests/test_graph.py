"""A CUDA graph's making and its use, with stand-ins for what only a GPU has."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from swabench.training import graph as graphs
from swabench.training.graph import CudaGraph

Told = list[str]


class Stream:
    def __init__(self, told: Told, name: str) -> None:
        self._told, self.name = told, name

    def wait_stream(self, other: "Stream") -> None:
        self._told.append(f"{self.name} waits for {other.name}")


class Device:
    """Notes what is done in which order, and replays what a capture recorded."""

    def __init__(self) -> None:
        self.told: Told = []
        self.current = self.main = Stream(self.told, "main")
        self.recording = False
        self.recorded: list[Tensor] = []
        self.seen: list[list[float]] = []

    def function(self, argument: Tensor) -> None:
        """What is made a graph of: recorded while one is captured, carried out otherwise."""
        self.told.append(f"{'recorded' if self.recording else 'run'} on {self.current.name}")
        if self.recording:
            self.recorded.append(argument)
        else:
            self.seen.append(argument.tolist())

    def replay(self) -> None:
        (argument,) = self.recorded
        self.seen.append(argument.tolist())

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextmanager
    def graph(self, graph: "Graph", stream: Stream | None = None) -> Iterator[None]:
        self.recording = True
        with self.on(stream or Stream(self.told, "a stream of its own")):
            yield
        self.recording = False


class Graph:
    """Stands for `torch.cuda.CUDAGraph`."""

    device: Device

    def replay(self) -> None:
        self.device.replay()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    found = Device()
    monkeypatch.setattr(torch.cuda, "Stream", lambda: Stream(found.told, "side"))
    monkeypatch.setattr(torch.cuda, "default_stream", lambda: found.main)
    graphs._beside.cache_clear()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: found.current)
    monkeypatch.setattr(torch.cuda, "stream", found.on)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", found.graph)
    monkeypatch.setattr(Graph, "device", found, raising=False)
    return found


def test_a_graph_is_warmed_up_and_captured_on_one_stream_in_order(device: Device) -> None:
    """As PyTorch's notes on CUDA graphs ask for; without the waits a GPU would mix them up."""
    CudaGraph(device.function, torch.tensor([1.0, 2.0]))
    assert device.told == [
        "side waits for main",
        *["run on side"] * 3,
        "main waits for side",
        "recorded on side",
    ]
    assert device.seen == [[1, 2]] * 3


def test_a_replay_is_of_the_argument_given_and_leaves_the_example_alone(device: Device) -> None:
    example = torch.tensor([1.0, 2.0])
    graph = CudaGraph(device.function, example)
    device.seen.clear()
    graph(torch.tensor([3.0, 4.0]))
    graph(torch.tensor([5.0, 6.0]))
    assert device.seen == [[3, 4], [5, 6]]
    assert example.tolist() == [1, 2]


def test_graphs_share_one_stream_beside_the_default_one_and_no_other(device: Device) -> None:
    """On each cuBLAS has a workspace, which graphs that are replayed at a time must not share."""
    for _ in range(2):
        CudaGraph(device.function, torch.ones(1))
    assert graphs._beside() is graphs._beside()
    device.told.clear()
    own = Stream(device.told, "own")
    with device.on(own):
        CudaGraph(device.function, torch.ones(1))
    assert set(device.told) == {"own waits for own", "run on own", "recorded on own"}
