"""A few faults of the campaign that `make torture` carries out, and that it can find something."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from swabench.records import unfinished
from tests.torture.__main__ import Kept
from tests.torture.campaign import Campaign, Planned
from tests.torture.faults import (
    DamagedFile,
    DamagedState,
    FaultAtWrite,
    KilledAtRandom,
    files_by_kind,
)
from tests.torture.scenarios import HEADS, Scenario

TRAINED = Scenario(
    "heads", HEADS, ("finetune", "-m", "all", "-c", "study.yaml", "-s", "1", "--save-every", "0s")
)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield Campaign(tmp_path_factory.mktemp("torture"), 5, [TRAINED])


@pytest.mark.slow
def test_a_few_faults_cost_nothing(campaign: Campaign) -> None:
    kinds = files_by_kind(campaign.whole["heads"])
    assert kinds.keys() >= {"runs/record.json", "runs/arrays.safetensors", "features/features.json"}
    assert not [kind for kind in kinds if "seed" in kind]
    writes = campaign.whole["heads"].writes
    contents = [number for number, write in enumerate(writes) if not write.is_rename]
    planned = campaign.faults()
    states = [p for p in planned if isinstance(p.fault, DamagedState)]
    chosen = [
        Planned("heads", KilledAtRandom(0)),
        Planned("heads", FaultAtWrite(contents[len(contents) // 2], "kill within")),
        Planned("heads", FaultAtWrite(contents[-1], "short")),
        Planned("heads", DamagedFile("record", "flip", 0, kinds["runs/record.json"])),
        Planned("heads", DamagedFile("features", "cut", 0, kinds["features/features.json"])),
        states[0],
    ]
    assert [found for _, found in campaign.try_all(chosen, 2)] == [[]] * len(chosen)


@pytest.mark.slow
def test_every_fault_is_in_one_shard(campaign: Campaign) -> None:
    shards = [campaign.shard(number, 7) for number in range(1, 8)]
    names = sorted(str(planned) for shard in shards for planned in shard)
    assert names == sorted(str(planned) for planned in campaign.faults())
    assert len(set(names)) == len(names)
    assert min(map(len, shards)) > len(names) / 14


@pytest.mark.slow
def test_the_campaign_finds_a_state_that_is_not_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program whose states are written in place and believed as they are."""

    def in_place(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    monkeypatch.setattr(unfinished, "write_file", in_place)
    monkeypatch.setattr(unfinished, "sha256", lambda content: "0" * 64)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    campaign = Campaign(tmp_path, 5, [TRAINED])
    writes = campaign.whole["heads"].writes
    states = [
        n
        for n, write in enumerate(writes)
        if not write.is_rename and "unfinished" in write.path.parts
    ]
    assert campaign.try_one(Planned("heads", FaultAtWrite(states[-2], "kill within")))


def test_shards_of_one_campaign_add_up(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    for number, tried in ((2, 7), (1, 5), (2, 6)):
        parts = {"kills, heads": {"tried": tried, "found": 1}}
        Kept(path, 3, 20, "ab").write(number, {"parts": parts})
    whole = json.loads(path.read_text())
    assert whole["parts"] == {"kills, heads": {"tried": 11, "found": 2}}
    assert list(whole["done"]) == ["1", "2"]
    for other in ((4, 20, "ab"), (3, 10, "ab"), (3, 20, "cd")):
        with pytest.raises(typer.BadParameter, match="another campaign, of 20 shards with seed 3"):
            Kept(path, *other)
    assert json.loads(path.read_text()) == whole
