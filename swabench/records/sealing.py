"""Records as JSON that carries its own digest, so that what was altered is refused."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from swabench.system.errors import InputError
from swabench.system.files import sha256_of_json

T = TypeVar("T")


def sealed(content: Mapping[str, Any], indent: int | None = 1) -> bytes:
    """A record as JSON that carries its own digest."""
    return json.dumps({**content, "sha256": sha256_of_json(content)}, indent=indent).encode()


def read_sealed(path: Path, whole: Path, make: Callable[[dict[str, Any]], T]) -> T:
    """Read a sealed record and make something of it; `whole` is what to delete if it is bad."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not a mapping of keys")
        if content.pop("sha256", None) != sha256_of_json(content):
            raise ValueError("altered since it was written")
        return make(content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: no readable record ({error}); delete {whole} and run again"
        ) from None
