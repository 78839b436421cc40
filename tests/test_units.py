"""How a study is cut into units, what they take together, and which seeds are whose."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swabench.cli.options import AskedShard
from swabench.cli.parsing import parse_shard
from swabench.runs.planning import Spread, Wave, spread_of
from swabench.runs.units import (
    Unit,
    finetuning_units,
    landscape_units,
    pretraining_units,
    shared_units,
    starting_units,
)
from swabench.study.loading import load_study
from swabench.study.study import Study
from swabench.study.trajectories import trajectories
from swabench.system.errors import InputError


def runs_of(study: Study, seeds: Sequence[int], *without: tuple[str, int]) -> list[tuple[str, int]]:
    runs = [(name, seed) for seed in seeds for name in study.all_methods]
    return [run for run in runs if run not in without]


def taken(units: Sequence[Unit]) -> Counter[tuple[str, int]]:
    return Counter((name, seed) for unit in units for seed in unit.seeds for name in unit.names)


@pytest.mark.parametrize("name", ["mnist", "layer4", "transfer", "network", "cifar10"])
def test_units_take_every_run_once(name: str) -> None:
    study = load_study(name)
    left = runs_of(study, [3, 5, 8], ("swa", 5), ("sgd", 8))
    assert taken(finetuning_units(study, left)) == Counter(left)


def test_heads_of_a_seed_are_one_unit() -> None:
    study = load_study("mnist")
    units = finetuning_units(study, runs_of(study, [3, 5]))
    assert [unit.seeds for unit in units] == [(3,), (5,)]
    assert units[0].names == tuple(study.all_methods)
    assert str(units[1]) == f"sgd and {len(study.all_methods) - 1} more at seed 5"
    assert starting_units(study, [("adam", 3)]) == []  # the unit pretrains its seed


def test_a_network_is_cut_at_its_trajectories_and_starts_first() -> None:
    study = load_study("layer4")
    units = finetuning_units(study, runs_of(study, [200, 201]))
    paths = [tuple(path) for path in trajectories(study.all_methods)]
    assert [(unit.seeds, unit.names) for unit in units] == [
        ((seed,), path) for seed in (200, 201) for path in paths
    ]
    starts = starting_units(study, [("adam", 200), ("adam", 201)])
    assert starts == [Unit("pretrain", (200,), ("adam",)), Unit("pretrain", (201,), ("adam",))]


def test_on_a_gpu_the_trajectories_of_a_seed_are_one_unit() -> None:
    """They train side by side there, in one process."""
    study = load_study("layer4")
    units = finetuning_units(study, runs_of(study, [200, 201]), "cuda")
    assert [(unit.seeds, unit.names) for unit in units] == [
        ((seed,), tuple(study.all_methods)) for seed in (200, 201)
    ]


def test_what_is_left_of_a_trajectory_is_a_unit() -> None:
    study = load_study("layer4")
    (path,) = [path for path in trajectories(study.all_methods) if "swa" in path]
    (unit,) = finetuning_units(study, [("swa", 200)])
    assert unit == Unit("finetune", (200,), ("swa",))
    assert len(list(path)) > 1


def test_seeds_that_share_a_drawn_backbone_are_one_unit() -> None:
    study = load_study("mnist-sources")
    units = finetuning_units(study, runs_of(study, study.seeds))
    assert taken(units) == Counter(runs_of(study, study.seeds))
    own = [u for u in units if study.draws(u.seeds[0]).backbone != study.backbone.seed]
    drawn = [{(d.split, d.backbone) for d in map(study.draws, unit.seeds)} for unit in own]
    assert all(len(each) == 1 for each in drawn)
    assert len(set.union(*drawn)) == len(own)  # and no backbone is in two
    # The others use the study's own, which is computed once, and are cut seed by seed.
    others = [unit for unit in units if unit not in own]
    assert all(len(unit.seeds) == 1 for unit in others)
    assert len(others) > 10
    assert shared_units(study, units) == [Unit("features", others[0].seeds)]
    assert shared_units(study, own) == []
    assert [
        unit.seeds for unit in pretraining_units(study, [("adam", s) for s in study.seeds])
    ] == [unit.seeds for unit in units]


def test_what_all_need_is_computed_once_by_one() -> None:
    study = load_study("mnist")
    units = finetuning_units(study, runs_of(study, [3, 5]))
    assert shared_units(study, units) == [Unit("features", (3,))]
    assert shared_units(study, units[:1]) == []
    assert str(shared_units(study, units)[0]) == "what all seeds share"


def test_parts_of_a_landscape_are_units() -> None:
    first, second = landscape_units([("lines", 3), ("rays", 5)])
    assert (first.seeds, first.names, second.seeds, second.names) == (
        (3,),
        ("lines",),
        (5,),
        ("rays",),
    )
    assert str(second) == "rays of the landscape at seed 5"


# --- how long they take ---------------------------------------------------------------------

SECONDS = st.lists(st.integers(1, 50).map(float), min_size=1, max_size=6)


def test_a_worker_takes_the_next_unit_when_it_is_free() -> None:
    wave = Wave("work", [5.0, 3.0, 1.0, 4.0])  # 5 | 3 1 4: the second ends at 8
    assert Spread([wave]).on(2) == 8
    assert Spread([Wave("before", [7.0]), wave]).on(2) == 15
    assert Spread([Wave("before", [7.0]), wave]).longest_chain == 12


@given(st.lists(SECONDS, min_size=1, max_size=3), st.integers(1, 8))
def test_more_workers_are_bounded_by_the_longest_chain(
    waves: list[list[float]], workers: int
) -> None:
    spread = Spread([Wave("work", seconds) for seconds in waves])
    whole = sum(map(sum, waves))
    assert spread.on(1) == whole
    assert spread.on(100) == spread.longest_chain
    assert spread.longest_chain <= spread.on(workers) <= whole
    assert spread.on(workers) >= whole / workers
    # Handing out in order is never worse than twice the best (Graham 1966).
    best = sum(min(_each_way(seconds, workers)) for seconds in waves)
    assert spread.on(workers) <= 2 * best


def _each_way(seconds: Sequence[float], workers: int) -> list[float]:
    """The time that every way of dealing units out to workers takes."""
    ways = itertools.product(range(min(workers, 3)), repeat=len(seconds))
    return [
        max(sum(s for s, by in zip(seconds, way, strict=True) if by == w) for w in set(way))
        for way in ways
    ]


class MadeUpCosts:
    """Features take 100 seconds a backbone, a run one."""

    device = torch.device("cpu")

    def __init__(self, study: Study) -> None:
        self._study = study

    def features_seconds(self, missing: Sequence[tuple[str, int]]) -> float:
        return 100.0 * len({self._study.draws(seed).backbone for _, seed in missing})

    def training_seconds(self, missing: Sequence[tuple[str, int]]) -> float:
        return float(len(missing))


@pytest.mark.parametrize("name", ["mnist", "layer4", "mnist-sources"])
def test_one_worker_takes_what_a_study_costs(name: str) -> None:
    """Features that seeds share are computed once, those of a drawn backbone by its unit."""
    study = load_study(name)
    runs = [(run, seed) for seed in study.seeds for run in study.run_names]
    costs: Any = MadeUpCosts(study)
    spread = spread_of(study, runs, costs)
    assert spread.on(1) == costs.features_seconds(runs) + len(runs)
    assert spread.on(1000) == spread.longest_chain < spread.on(1) / 2


# --- shares ---------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 12))
def test_shares_are_all_seeds_once_and_alike(seeds: int, of: int) -> None:
    chosen = list(range(100, 100 + seeds))
    shares = []
    for number in range(1, of + 1):
        asked = AskedShard(shard=f"{number}/{of}")
        if seeds * number // of > seeds * (number - 1) // of:
            shares.append(asked.own(chosen))
        else:
            with pytest.raises(InputError, match=f"has no seed, as there are {seeds}; use at most"):
                asked.own(chosen)
    assert [seed for share in shares for seed in share] == chosen
    assert len(shares) == min(seeds, of)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_a_share_all_seeds_are_meant() -> None:
    assert AskedShard().own([4, 2]) == [4, 2]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "/2", "1/0", "a/b", "-1/2", "1/2/3", ""])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--shard: .*give a share such as 1/8"):
        parse_shard(text)


def test_a_share_is_one_of_several() -> None:
    assert parse_shard(" 2/8 ") == (2, 8)
