"""Options that many commands share."""

from pathlib import Path

import pytest
import torch

from swabench.cli.options import AskedWork
from swabench.cli.parsing import parse_seeds
from swabench.study.limits import MOST_SEEDS
from swabench.study.loading import load_study
from swabench.system.errors import InputError


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3", [0, 1, 2]),
        (" 2 ", [0, 1]),
        ("0,3,7-9", [0, 3, 7, 8, 9]),
        ("5-5", [5]),
        ("9,2", [9, 2]),
        (str(MOST_SEEDS), list(range(MOST_SEEDS))),
        (f"1-{MOST_SEEDS}", list(range(1, MOST_SEEDS + 1))),
    ],
)
def test_seeds_are_a_number_or_a_list(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text",
    [
        "1,1",
        "0-3,2",
        "0",
        "",
        "a",
        "1-2-3",
        "-1",
        "0-1000000",
        "3-1",
        "0,3-1",
        "0,1-2-3",
        "1,",
        str(MOST_SEEDS + 1),
        f"0-{MOST_SEEDS}",
        f"0-{MOST_SEEDS - 1},{MOST_SEEDS}",
        f"{2**32}",
        f"{2**32},1",
        f"0,{2**32 - 1}-{2**32}",
        f"0-{10**18}",
        "9" * 5000,
        "1-",
        "1-2-",
        "-",
        "²",
        "1,²",
        "0,\x1b[2J",
    ],
)
def test_what_names_no_seed_or_one_twice_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--seeds"):
        parse_seeds(text)


def test_the_largest_seed_is_one() -> None:
    assert parse_seeds(f"0,{2**32 - 1}") == [0, 2**32 - 1]
    with pytest.raises(InputError, match=r"a seed is a number from 0 to 4294967295"):
        parse_seeds(f"0,{2**32}")


def test_seeds_that_are_given_and_empty_are_not_the_studys() -> None:
    with pytest.raises(InputError, match="--seeds"):
        AskedWork("smoke", seeds="").as_written()


def test_no_time_is_no_time_to_stop_after() -> None:
    with pytest.raises(InputError, match="--stop-after: no time; give a time such as"):
        AskedWork("smoke", stop_after="0s").begin()


def test_threads_are_those_asked_for(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    study = load_study("smoke")
    try:
        for number in (1, 2):
            AskedWork(results=tmp_path, device="cpu", threads=number).experiment(study)
            assert torch.get_num_threads() == number
        AskedWork(results=tmp_path, device="cpu").experiment(study)
        assert torch.get_num_threads() == 2  # left as it is
    finally:
        torch.set_num_threads(before)
