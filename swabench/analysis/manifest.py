"""The manifest: what the numbers of a study were made with, from its records alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from swabench.analysis.frame import Records, missing_runs
from swabench.records import LandscapeRecord
from swabench.study.study import Study


def manifest(
    study: Study,
    records: Records,
    landscape: Sequence[LandscapeRecord],
    seeds: Sequence[int],
) -> str:
    """The study's settings, data digests, environments, runs and landscape, as JSON."""
    every = [(name, record) for name, found in records.items() for record in found.values()]
    environments, features = _Numbered(), _Numbered()
    runs: dict[str, dict[str, Any]] = {}
    for name, record in every:
        runs.setdefault(name, {})[str(record.seed)] = {
            "identity": record.identity,
            "environment": environments.number(record.environment),
            "features": features.number(record.provenance.get("features", {})),
            "seconds": record.seconds,
            "sha256": record.arrays_sha256,
            **({"diverged": record.diverged.plain()} if record.diverged else {}),
        }
    parts: dict[str, dict[str, Any]] = {}
    for survey in landscape:
        parts.setdefault(survey.part, {})[str(survey.seed)] = {
            "identity": survey.identity,
            "environment": environments.number(survey.environment),
            "features": features.number(survey.provenance.get("features", {})),
            "seconds": survey.seconds,
            "weights": dict(survey.weights),
        }
    first = every[0][1].provenance
    backbones = {
        str(study.draws(record.seed).backbone): record.provenance.get("backbone")
        for _, record in every
    }
    content = {
        "study": study.model_dump(mode="json"),
        "seeds": list(seeds),
        "draws": {str(seed): asdict(study.draws(seed)) for seed in seeds},
        "missing": missing_runs(records, seeds),
        "data": first.get("data"),
        # By the seed of their weights where the study's seeds draw it.
        "backbone": backbones if "backbone" in study.seed_draws else first.get("backbone"),
        "features": features.values,
        "environments": environments.values,
        "training_seconds": round(sum(record.seconds for _, record in every), 1),
        "runs": runs,
        "landscape": parts,
    }
    return json.dumps(content, indent=1) + "\n"


class _Numbered:
    """Distinct values, in the order in which they were met, each listed once."""

    def __init__(self) -> None:
        self.values: list[dict[str, Any]] = []

    def number(self, value: Mapping[str, Any]) -> int:
        """The place of a value."""
        plain = dict(value)
        if plain not in self.values:
            self.values.append(plain)
        return self.values.index(plain)
