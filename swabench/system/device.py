"""Where tensors live: the choice of a device, its name, its memory, its arithmetic."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from swabench.system.errors import InputError, NoMemoryError

DEVICES = ("auto", "cpu", "cuda", "mps")

# What torch's allocators and NVIDIA's libraries say, in small letters.
_OUT_OF_MEMORY = (
    "out of memory",  # CUDA and MPS, their allocators and their drivers
    "defaultcpuallocator: can't allocate memory",
    "defaultcpuallocator: not enough memory",  # Windows
    "_status_alloc_failed",  # cuBLAS, cuDNN and their like
    "allocation_failed",  # cuDNN 9 in full: device's or host's
)
# A torch.AcceleratorError is a RuntimeError in the releases that have it so far.
_TORCH_ERRORS = (RuntimeError, getattr(torch, "AcceleratorError", RuntimeError))


def choose_device(name: str) -> torch.device:
    """The device behind `--device`; `auto` takes a GPU where there is one.

    Raises:
        InputError: The name is unknown, or this machine or this torch has no such device.
    """
    if name not in DEVICES:
        raise InputError(f"--device: {name!r} is unknown; use one of {', '.join(DEVICES)}")
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    if not present[name]:
        raise InputError(
            f"--device: {name!r} is not available to torch {torch.__version__} on this machine; "
            "use --device cpu, or auto to take what there is"
        )
    return torch.device(name)


def use_threads(number: int | None) -> None:
    """Compute with so many processor threads; None leaves the choice to torch.

    Sums are split otherwise by another number, which shows in the last digits.
    """
    if number is not None:
        torch.set_num_threads(number)


def use_repeatable_kernels() -> None:
    """Let cuDNN take kernels alone that add up in one order, and always the same ones.

    So two runs of one trajectory on one GPU are one trajectory.
    """
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def describe_device(device: torch.device) -> str:
    """The device's model name, for the manifest."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return describe_processor() + (" (MPS)" if device.type == "mps" else "")


def describe_processor() -> str:
    """The processor's model name, as far as the machine tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was given: a GPU works beside Python."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def exact_float32() -> Iterator[None]:
    """Within it, a GPU computes float32 as float32, not with TF32's ten bits of a factor.

    cuDNN's convolutions use TF32 unless told otherwise; matrix products do where somebody asked
    for it. Afterwards both are as they were.
    """
    settings: list[Any] = [torch.backends.cudnn, torch.backends.cuda.matmul]
    rough = [each for each in settings if each.allow_tf32]
    for each in rough:
        each.allow_tf32 = False
    try:
        yield
    finally:
        for each in rough:
            each.allow_tf32 = True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory, or the machine's, does not suffice.

    CUDA's allocator has a class for it; all others speak by an error's words alone.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = str(error).lower()
    return isinstance(error, _TORCH_ERRORS) and any(words in said for words in _OUT_OF_MEMORY)


@contextmanager
def memory_for(what: str) -> Iterator[None]:
    """Within it, memory that does not suffice is an error in words.

    Args:
        what: For what it is, and what to do where it does not suffice.

    Raises:
        NoMemoryError: Memory does not suffice.
    """
    try:
        yield
    except (MemoryError, *_TORCH_ERRORS) as error:
        if not is_out_of_memory(error):
            raise
        raise NoMemoryError(f"out of memory for {what}") from None
