"""A study on a Ray cluster of two nodes, which this machine pretends to be.

Where Ray is not installed nothing of it is tried: `pip install 'swabench[ray]'`.
"""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swabench.runs.places import Options
from swabench.runs.places import ray as place_of_ray
from swabench.system.pausing import Pause
from swabench.system.progress import SilentProgress
from tests.test_cli import TINY, Place
from tests.test_cli import images as images
from tests.test_interruptions import check_same
from tests.test_spreading import HEADS, begun, heads, network

__all__ = ["begun", "heads", "network"]

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PATHS = ("finetune", "-m", "swa-cyclical", "-m", "pswa", *TINY, "--seeds", "1", "--threads", "1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    made = cluster_utils.Cluster()
    made.add_node(num_cpus=0)  # the head, which the driver joins
    made.add_node(num_cpus=1)
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.fixture
def fresh(tmp_path: Path, heads: Place) -> Place:
    return Place(tmp_path, heads.images, heads.cache)


def on(cluster: Any) -> tuple[str, str]:
    return "--on", f"ray:{cluster.address}"


def test_a_cluster_gives_the_same_records(fresh: Place, heads: Place, cluster: Any) -> None:
    done = fresh.run(*HEADS, *on(cluster))
    assert done.code == 0, done.errors
    assert "fine-tuning: 4 of 4 units" in done.errors
    assert "worker 1 on " in done.errors
    check_same(fresh, heads)


def test_no_usage_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "1")
    monkeypatch.setattr(ray, "init", lambda **_: seen.update(os.environ))
    monkeypatch.setattr(place_of_ray, "_room", lambda *_: (0.0, 1, 1))
    place_of_ray.make_ray(Options(None, None, "cpu", 1.0, SilentProgress(), Pause()))
    assert seen["RAY_USAGE_STATS_ENABLED"] == "0"
    assert seen["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0"


def test_without_a_shared_folder_records_travel(
    fresh: Place, heads: Place, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place_of_ray.RayWorker, "_sees", lambda worker, folder: False)
    done = fresh.run("pretrain", *TINY, "--seeds", "4", "--threads", "1", *on(cluster))
    assert done.code == 0, done.errors
    assert len(fresh.records()) == 4
    done = fresh.run(*HEADS, *on(cluster))
    assert done.code == 0, done.errors
    check_same(fresh, heads)


def test_a_lost_node_costs_nothing_but_time(begun: Place, network: Place, cluster: Any) -> None:
    extra = cluster.add_node(num_cpus=1)

    def lose_it() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if len(list(begun.documents.glob("unfinished/*/state-*.json"))) > 1:
                break
            time.sleep(0.01)
        cluster.remove_node(extra, allow_graceful=False)

    losing = threading.Thread(target=lose_it)
    losing.start()
    done = begun.run(*PATHS, "--save-every", "0s", *on(cluster))
    losing.join()
    assert done.code == 0, done.errors
    check_same(begun, network)


def test_another_version_on_a_node_is_refused(
    fresh: Place, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = {**place_of_ray.made_with(), "torch": "1.0"}
    monkeypatch.setattr(place_of_ray, "made_with", lambda: theirs)
    done = fresh.run(*HEADS, *on(cluster))
    assert done.code == 2
    assert "(here 1.0); install the same on every node" in done.errors


@pytest.mark.parametrize("address", ["nowhere.invalid:1", "127.0.0.1:1", "here", "here:there"])
def test_a_cluster_that_is_not_there_is_told(address: str, fresh: Place) -> None:
    done = fresh.run(*HEADS, "--on", f"ray:{address}")
    assert done.code == 2
    assert f"--on ray: no cluster at {address} (" in done.errors


@pytest.mark.parametrize("share", ["0", "1.5", "nan", "1e-9", "-1"])
def test_a_share_of_a_gpu_that_is_none_is_refused(share: str, fresh: Place) -> None:
    done = fresh.run(*HEADS, "--on", "ray", "--gpus-per-unit", share)
    assert done.code == 2
    assert "--gpus-per-unit" in done.errors


def test_documents_alone_need_no_cluster(fresh: Place, heads: Place) -> None:
    shutil.copytree(heads.results, fresh.results)
    done = fresh.run(*HEADS, "--on", "ray:nowhere.invalid:1")
    assert done.code == 0, done.errors


def test_an_error_on_a_node_is_told_with_its_name(
    fresh: Place, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place_of_ray.RayWorker, "_sees", lambda worker, folder: False)
    monkeypatch.setattr(place_of_ray, "pack", lambda *_, **__: {"../evil": b"evil"})
    done = fresh.run(*HEADS, *on(cluster))
    assert done.code == 2
    assert "error: worker 1 on " in done.errors
    assert "no record's path; nothing is written" in done.errors


def test_more_than_any_node_has_is_refused(fresh: Place, cluster: Any) -> None:
    done = fresh.run(*HEADS[:-2], "--threads", "64", *on(cluster))
    assert done.code == 2
    assert "no node of the cluster has 64 threads; ask for less" in done.errors
    done = fresh.run(*HEADS, "--device", "cuda", *on(cluster))
    assert done.code == 2
    assert "--device: the cluster has no GPU; use --device cpu" in done.errors
