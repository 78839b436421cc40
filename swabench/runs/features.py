"""What is frozen is computed once: frozen layers' outputs, and a backbone's BatchNorm statistics.

Both go through the cache (`runs/cache.py`), by what they depend on: the images' bytes, the
backbone's weights, the boundary, image size, normalisation and precision.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import ResNet

from swabench.runs.cache import FEATURES, STATISTICS, Features, cached, parts_of
from swabench.runs.partial import PartialFeatures
from swabench.study.inputs import Precision
from swabench.study.stages import Boundary
from swabench.system.device import describe_device, exact_float32, memory_for
from swabench.system.errors import InputError, SwabenchError
from swabench.system.files import (
    in_bytes,
    sha256,
    sha256_of_json,
)
from swabench.system.pausing import SAVE_EVERY
from swabench.system.progress import Progress
from swabench.training.backbone import Normalization, Preprocess, frozen_part, weights_digest
from swabench.training.batchnorm import mixed_batches, reestimated_statistics
from swabench.training.convolution import lay_out
from swabench.training.flat import flatten

# Images at a time, of 28 pixels.
BATCH = {"cpu": 256, "cuda": 4096, "mps": 1024}


def frozen_features(
    images: NDArray[np.uint8],
    network: ResNet,
    boundary: Boundary,
    image_size: int,
    normalization: Normalization,
    precision: Precision,
    *,
    device: torch.device,
    cache: Path,
    progress: Progress,
    name: str,
    save_every: float = SAVE_EVERY,
    keep: bool = True,
) -> Features:
    """The frozen layers' output for all images, from the cache or computed into it.

    Args:
        images: Shape (N, C, H, W), uint8.
        network: ResNet-50; the layers below the boundary are taken apart, so pass a copy.
        boundary: `head` or `layer4`.
        image_size: Side in pixels at which the network sees the images.
        normalization: Mean and deviation of each channel.
        precision: Number format of the computation and of the result.
        device: Where to compute.
        cache: The user's cache folder.
        progress: Takes notes and counts of what is done.
        name: What the images are, for messages.
        save_every: Seconds of work that an interruption may cost.
        keep: Whether an entry that is written here stays. Without that it is gone as soon as it
            was read: the result, its digest too, is the same.

    Raises:
        InputError: The entry in the cache is not what it should be.
        SwabenchError: It cannot be written.
    """
    key = _key(images, network, image_size, normalization)
    key |= {"boundary": boundary, "precision": precision}
    home = cache / FEATURES

    def compute() -> Tensor:
        layers = nn.Sequential(
            Preprocess(image_size, normalization), *frozen_part(network, boundary)
        )
        _check_room(images, layers, precision, home)
        batch = batch_size(device, image_size)
        # Apart by what rounds otherwise: no entry is made of two kinds of rows.
        kind = [describe_device(device), torch.get_num_threads(), torch.__version__, batch]
        parts = PartialFeatures(home / f"{parts_of(key)}{sha256_of_json(kind)[:8]}", save_every)
        return extract(images, layers, device, precision, progress, name, batch, parts)

    what = f"features of the {name} images"
    return cached(home, key, compute, device, lambda line: progress.say(f"{what}: {line}"), keep)


def batchnorm_statistics(
    images: NDArray[np.uint8],
    network: ResNet,
    image_size: int,
    normalization: Normalization,
    *,
    device: torch.device,
    cache: Path,
    progress: Progress,
) -> Tensor:
    """BatchNorm's statistics of a network on other images than its own, from the cache or into it.

    Args:
        images: Shape (N, C, H, W), uint8; all of them, mixed, in batches of nearly equal size: each
            is normalised by its own statistics on its way, so that their size matters.
        network: ResNet-50; its own statistics are not looked at, and lost.
        image_size: Side in pixels at which it sees the images.
        normalization: Mean and deviation of each channel.
        device: Where to compute.
        cache: The user's cache folder.
        progress: Takes notes and counts of what is done.

    Returns:
        Means and variances as `flat.flatten` orders them, shape (S,), on the CPU.

    Raises:
        InputError: The entry in the cache is not what it should be.
        SwabenchError: It cannot be written.
    """
    key = _key(images, network, image_size, normalization)
    size = batch_size(torch.device("cpu"), image_size)  # the same on all devices
    key |= {"what": "BatchNorm's statistics", "batch_size": size}

    def compute() -> Tensor:
        preprocess = lay_out(Preprocess(image_size, normalization), device)
        layers = lay_out(network, device)
        batches = mixed_batches(len(images), size)
        task = progress.task("BatchNorm's statistics", len(images), "images")
        with exact_float32(), reestimated_statistics(layers), task as advance:
            for rows in batches:
                layers(preprocess(torch.from_numpy(images[rows.numpy()]).to(device)))
                advance(len(rows))
        return flatten(layers)[1].cpu()

    def say(line: str) -> None:
        progress.say(f"BatchNorm's statistics of the backbone: {line}")

    return cached(cache / STATISTICS, key, compute, device, say).values


def _key(
    images: NDArray[np.uint8], network: ResNet, image_size: int, normalization: Normalization
) -> dict[str, Any]:
    """What everything in the cache depends on."""
    return {
        "images": sha256(images.tobytes()),
        "shape": list(images.shape),
        "weights": weights_digest(network),
        "image_size": image_size,
        "normalization": [list(values) for values in normalization],
    }


def batch_size(device: torch.device, image_size: int) -> int:
    """Images at a time through the frozen layers: maps grow with the images' area."""
    most = BATCH[device.type]
    return max(1, min(most, most * 28**2 // image_size**2))


def extract(
    images: NDArray[np.uint8],
    layers: nn.Module,
    device: torch.device,
    precision: Precision,
    progress: Progress,
    name: str,
    batch: int,
    parts: PartialFeatures | None = None,
) -> Tensor:
    """Run all images through `layers`, `batch` of them at a time.

    Args:
        images: Shape (N, C, H, W), uint8.
        layers: What makes features of them.
        device: Where to compute.
        precision: Number format of the computation and of the result.
        progress: Takes notes and counts of what is done.
        name: What the images are, for messages.
        batch: How many at a time.
        parts: Where rows are kept, and found after an interruption; nowhere without it.

    Returns:
        The layers' output on the CPU, first dimension N, contiguous.

    Raises:
        SwabenchError: The device's memory does not hold a batch.
    """
    result: Tensor | None = None
    elsewhere = "" if device.type == "cpu" else ", or use --device cpu"
    memory = memory_for(
        f"features of {batch} images at a time on {device.type}; lower data.image_size{elsewhere}"
    )
    task = progress.task(f"features, {name}", len(images), "images")
    with memory, torch.inference_mode(), exact_float32(), task as done:
        layers = lay_out(layers.to(getattr(torch, precision)), device)
        begun = 0
        for start, block in parts.blocks() if parts else ():
            if result is None:
                result = _room_for(images, block)
            begun = start + len(block)
            result[start:begun] = block
            done(len(block), before=True)
        for start in range(begun, len(images), batch):
            rows = torch.from_numpy(images[start : start + batch]).to(device)
            output = layers(rows).cpu()
            if result is None:
                result = _room_for(images, output)
            result[start : start + batch] = output
            if parts:
                parts.keep_if_due(result, start + len(rows))
            done(len(rows))
    if result is None:
        raise ValueError("no images")
    return result


def _room_for(images: NDArray[np.uint8], some: Tensor) -> Tensor:
    """An empty tensor for the features of all images, of which `some` are a part."""
    with torch.inference_mode(False):  # so that autograd may use it
        return torch.empty(len(images), *some.shape[1:], dtype=some.dtype)


def _check_room(
    images: NDArray[np.uint8], layers: nn.Module, precision: Precision, folder: Path
) -> None:
    """Find out before the long work whether memory and disk will hold its result.

    Raises:
        SwabenchError: They will not; says how large it is.
    """
    with torch.no_grad():
        one = layers(torch.from_numpy(images[:1]))
    size = one.numel() * getattr(torch, precision).itemsize * len(images)
    remedy = (
        "set backbone.cache_features to false, which runs the frozen layers anew each step, or "
        "lower data.image_size or data.training_images"
    )
    if size > physical_memory() / 2:
        raise InputError(
            f"the frozen layers' outputs for {len(images)} images are {in_bytes(size)}, more "
            f"than half of this machine's memory ({in_bytes(physical_memory())}); {remedy}"
        )
    free = shutil.disk_usage(folder).free
    if size > free:
        raise SwabenchError(
            f"{folder}: the frozen layers' outputs for {len(images)} images are {in_bytes(size)}, "
            f"and {in_bytes(free)} are free; set SWABENCH_CACHE to a larger disk, or {remedy}"
        )


def physical_memory() -> int:
    """This machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
