"""What a number was made with: versions, device, commit. For records and manifests."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from swabench.system.device import describe_device, describe_processor
from swabench.system.version import __version__


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, device, threads and commit of this process."""
    return {
        "swabench": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device.type,
        "device_name": describe_device(device),
        "processor": describe_processor(),
        "threads": torch.get_num_threads(),
        **{
            name: version(name)
            for name in ("torch", "torchvision", "numpy", "pandas", "scipy", "safetensors")
        },
    }


def commit() -> str | None:
    """The source checkout's commit, marked where files differ from it; None outside of one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        # Results are what a run writes, and pages what is said of it: the code stays the same.
        changed = _git(root, "status", "--porcelain", "--", ".", ":!results", ":!*.md")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}-modified" if changed else head


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()
