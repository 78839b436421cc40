"""The manifest: what the numbers of a study were made with, from its records alone."""

import json
from collections.abc import Sequence
from typing import Any

from swabench.analysis.table import Records, missing_runs
from swabench.study.study import Study


def manifest(study: Study, records: Records, seeds: Sequence[int]) -> str:
    """The study's settings, data digests, environments and runs, as JSON."""
    every = [(name, record) for name, found in records.items() for record in found.values()]
    environments: list[dict[str, Any]] = []
    runs: dict[str, dict[str, Any]] = {}
    for name, record in every:
        found = dict(record.environment)
        if found not in environments:
            environments.append(found)
        runs.setdefault(name, {})[str(record.seed)] = {
            "identity": record.identity,
            "environment": environments.index(found),
            "seconds": record.seconds,
            "sha256": record.arrays_sha256,
        }
    content = {
        "study": study.model_dump(mode="json"),
        "seeds": list(seeds),
        "missing": missing_runs(records, seeds),
        **every[0][1].provenance,
        "environments": environments,
        "training_seconds": round(sum(record.seconds for _, record in every), 1),
        "runs": runs,
    }
    return json.dumps(content, indent=1) + "\n"
