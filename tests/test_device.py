"""What a device says when its memory does not suffice, and how it computes."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from swabench.system.device import exact_float32, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("MPS backend out of memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_allocator_of_this_torch_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("before", [(True, False), (True, True), (False, True), (False, False)])
def test_float32_is_exact_within_and_as_before_afterwards(
    before: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    cudnn, matmul = torch.backends.cudnn, SimpleNamespace(allow_tf32=before[1])
    monkeypatch.setattr(cudnn, "allow_tf32", before[0])
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    with contextlib.suppress(KeyError), exact_float32():
        with exact_float32():
            pass
        assert (cudnn.allow_tf32, matmul.allow_tf32) == (False, False)
        raise KeyError
    assert (cudnn.allow_tf32, matmul.allow_tf32) == before


def test_torchs_own_setting_is_taken_back() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = True
    try:
        with exact_float32():
            assert not matmul.allow_tf32
        assert matmul.allow_tf32
    finally:
        matmul.allow_tf32 = before
