"""A few faults of the campaign that `make torture` carries out, and that it can find something."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from swabench.records import unfinished
from tests.torture.__main__ import Campaign
from tests.torture.scenarios import HEADS, Scenario

TRAINED = Scenario(
    "heads", HEADS, ("finetune", "-m", "all", "-c", "study.yaml", "-s", "1", "--save-every", "0s")
)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield Campaign(tmp_path_factory.mktemp("torture"), 5, 0.0, lambda line: None, [TRAINED])


@pytest.mark.slow
def test_a_few_faults_cost_nothing(campaign: Campaign) -> None:
    campaign.kills_at_random_moments()
    writes = campaign.writes(TRAINED)
    campaign.fault_at_write(TRAINED, writes // 2, "kill within")
    campaign.fault_at_write(TRAINED, writes - 2, "short")
    campaign.damaged_files()
    assert campaign.findings == []
    assert {part: count["tried"] for part, count in campaign.counts.items()} == {
        "kills, heads": 1,
        "kills at writes, heads": 1,
        "failing writes, heads": 1,
        "damaged, heads": 1,
    }


@pytest.mark.slow
def test_the_campaign_finds_a_state_that_is_not_written_whole(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program whose states are written in place and believed as they are."""

    def in_place(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    monkeypatch.setattr(unfinished, "write_file", in_place)
    monkeypatch.setattr(unfinished, "sha256", lambda content: "0" * 64)
    before = len(campaign.findings)
    number = campaign.writes(TRAINED) // 2
    campaign.fault_at_write(TRAINED, number, "kill within")
    found = campaign.findings[before:]
    campaign.findings[before:] = []
    assert found
