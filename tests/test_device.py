"""What a device says when its memory does not suffice, and how it computes."""

import contextlib
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from swabench.system.device import (
    choose_device,
    describe_device,
    exact_float32,
    is_out_of_memory,
    memory_for,
    synchronize,
    use_repeatable_kernels,
)
from swabench.system.errors import InputError, SwabenchError


def accelerator_error(words: str) -> Exception:
    """As torch's newer releases raise them."""
    kind: type[Exception] = getattr(torch, "AcceleratorError", RuntimeError)
    return kind(words)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), True),
        (MemoryError(), True),
        # What a GPU's driver and libraries say where torch's allocator was not the one to ask.
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), True),
        (accelerator_error("CUDA error: out of memory"), True),
        (accelerator_error("CUDA error: an illegal memory access was encountered"), False),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(h)"),
            True,
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (
            RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
            True,
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("MPS backend out of memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_only_memory_that_does_not_suffice_is_put_into_words() -> None:
    with pytest.raises(SwabenchError, match="out of memory for a thing"), memory_for("a thing"):
        torch.empty(1 << 60)
    with pytest.raises(SwabenchError, match="out of memory for a thing"), memory_for("a thing"):
        raise MemoryError
    with pytest.raises(KeyError), memory_for("a thing"):
        raise KeyError
    with pytest.raises(RuntimeError, match="shapes"), memory_for("a thing"):
        torch.mm(torch.ones(2, 3), torch.ones(2, 3))


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


@pytest.mark.parametrize(
    ("there", "automatic"),
    [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda"), (("cuda", "mps"), "cuda")],
)
def test_auto_takes_a_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], automatic: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    assert choose_device("auto") == torch.device(automatic)
    assert choose_device("cpu") == torch.device("cpu")
    for name in ("cuda", "mps"):
        if name in there:
            assert choose_device(name) == torch.device(name)
        else:
            with pytest.raises(InputError, match=f"'{name}' is not available"):
                choose_device(name)
    with pytest.raises(InputError, match="'tpu' is unknown; use one of auto, cpu, cuda, mps"):
        choose_device("tpu")


def test_kernels_that_add_up_in_another_order_are_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    use_repeatable_kernels()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark


def test_a_device_is_described_by_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names = [line.partition(": ")[2] for line in lines.splitlines() if "model name" in line]
    processor = names[0].strip() if names else platform.processor() or platform.machine()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a model of {device}")
    assert describe_device(torch.device("cpu")) == processor
    assert describe_device(torch.device("mps")) == f"{processor} (MPS)"
    assert describe_device(torch.device("cuda", 1)) == "a model of cuda:1"


def test_a_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for name in ("cpu", "cuda:1", "mps"):
        synchronize(torch.device(name))
    assert waited == [torch.device("cuda", 1), "mps"]
