"""What it takes to go on: the state of whatever changes while a trajectory is trained."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

State = Mapping[str, Any]
"""Mappings, sequences, numbers, words, None and tensors, nested.

It may share its tensors with whoever gave it, so it is to be written before training goes on.
"""


def put(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Give tensors the values they had; they stay the tensors they are."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def cloned(state: Any) -> Any:
    """A state whose tensors are its own, each apart: for what changes them in place."""
    return state.clone() if torch.is_tensor(state) else _each(state, cloned)


def moved(state: Any, device: torch.device) -> Any:
    """A state with its tensors on a device."""
    if torch.is_tensor(state):
        return state.to(device)
    return _each(state, lambda part: moved(part, device))


def as_arrays(state: Any) -> Any:
    """A state with NumPy arrays in place of its tensors."""
    if torch.is_tensor(state):
        return state.detach().cpu().numpy()
    return _each(state, as_arrays)


def as_tensors(state: Any) -> Any:
    """The reverse, on the CPU; tensors share their numbers with the arrays."""
    if isinstance(state, np.ndarray):
        return torch.from_numpy(state)
    return _each(state, as_tensors)


def _each(state: Any, change: Callable[[Any], Any]) -> Any:
    """A state whose parts were changed, whatever is no container as it is."""
    if isinstance(state, Mapping):
        return {key: change(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [change(value) for value in state]
    return state
