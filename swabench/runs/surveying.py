"""The surveyor that fits what a study trains: linear heads, or networks."""

from swabench.landscape.survey import Surveyor, surveyor_of_heads, surveyor_of_networks
from swabench.records import RecordStore
from swabench.runs.learners import in_lockstep
from swabench.runs.materials import Materials
from swabench.study.study import Study


def make_surveyor(study: Study, store: RecordStore, materials: Materials) -> Surveyor:
    """What measures the landscape of a study's fine-tuned runs."""
    boundary = study.finetune.trainable
    materials.prepare(boundary)  # loads what provenance is of
    splits, provenance = materials.splits(boundary), materials.provenance(boundary)
    if in_lockstep(study, boundary):
        return surveyor_of_heads(study, store, splits, materials.classes, provenance)
    layers, frozen = materials.trained_layers(boundary), materials.frozen_layers(boundary)
    return surveyor_of_networks(study, store, splits, layers, frozen, provenance)
