"""A few faults of the campaign that `make torture` carries out, and that it can find something."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from swabench.records import unfinished
from tests.torture.__main__ import keep
from tests.torture.campaign import Campaign, Planned
from tests.torture.faults import DamagedFile, FaultAtWrite, KilledAtRandom
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
    planned = campaign.faults()
    kinds = {p.fault.kind: p for p in planned if isinstance(p.fault, DamagedFile)}
    assert kinds.keys() >= {"runs/record.json", "runs/arrays.safetensors"}
    writes = campaign.whole["heads"].writes
    chosen = [
        Planned("heads", KilledAtRandom(0)),
        Planned("heads", FaultAtWrite(writes // 2, "kill within")),
        Planned("heads", FaultAtWrite(writes - 2, "short")),
        kinds["runs/record.json"],
    ]
    assert [found for _, found in campaign.try_all(chosen, 2)] == [[], [], [], []]


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
    number = campaign.whole["heads"].writes // 2
    assert campaign.try_one(Planned("heads", FaultAtWrite(number, "kill within")))


def test_shards_of_one_campaign_add_up(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    for number, tried in ((2, 7), (1, 5), (2, 6)):
        parts = {"kills, heads": {"tried": tried, "found": 1}}
        keep(path, 3, number, 20, {"parts": parts})
    whole = json.loads(path.read_text())
    assert whole["parts"] == {"kills, heads": {"tried": 11, "found": 2}}
    assert list(whole["shards"]) == ["1", "2"]
    keep(path, 4, 1, 20, {"parts": {}})
    assert json.loads(path.read_text())["done"] == 1
