"""What users write in options: times, shares, seeds."""

import re

from swabench.study.limits import LARGEST_SEED, MOST_SEEDS
from swabench.system.errors import InputError, in_short

_MOST_DIGITS = 20  # of a seed, with spaces: more are no seed, and slow to read


def parse_duration(option: str, text: str) -> float:
    """Seconds from `90s`, `50m`, `3h` or `3h30m`.

    Raises:
        InputError: It is none of these.
    """
    found = re.fullmatch(r"(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?", text.strip())
    if not text.strip() or not found:
        raise InputError(f"{option}: {text!r}; give a time such as 90s, 50m or 3h30m")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + seconds


def parse_shard(text: str) -> tuple[int, int]:
    """Which share of how many, from `2/8`.

    Raises:
        InputError: It is none.
    """
    found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text.strip())
    number, of = (int(part) for part in found.groups()) if found else (0, 0)
    if not 1 <= number <= of:
        raise InputError(f"--shard: {in_short(text)}; give a share such as 1/8, up to 8/8")
    return number, of


def parse_seeds(text: str) -> list[int]:
    """Seeds from `--seeds`: `5` means 0 to 4, `0,3,7-9` means these.

    Raises:
        InputError: It is neither, or names a seed twice, or too many, or none that there is.
    """
    where = f"--seeds: {in_short(text)}"
    spans = [range(int(text))] if _is_number(text) else [_span(p) for p in text.split(",")]
    if not all(spans):
        raise InputError(f"{where}; give a number of seeds (5) or seeds (0,3,7-9)")
    if sum(span.stop - span.start for span in spans) > MOST_SEEDS:
        raise InputError(f"{where}; these are more than {MOST_SEEDS} seeds; give fewer")
    if max(span[-1] for span in spans) > LARGEST_SEED:
        raise InputError(f"{where}; a seed is a number from 0 to {LARGEST_SEED}")
    found = [seed for span in spans for seed in span]
    if len(set(found)) < len(found):
        raise InputError(f"{where} names a seed twice; take one out")
    return found


def _is_number(text: str) -> bool:
    return text.strip().isdecimal() and len(text) <= _MOST_DIGITS


def _span(text: str) -> range:
    """The seeds of `3` or `7-9`; none where it is neither."""
    first, _, last = text.partition("-")
    if not _is_number(first) or not _is_number(last or first) or text.endswith("-"):
        return range(0)
    return range(int(first), int(last or first) + 1)
