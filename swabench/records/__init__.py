"""Records: what runs leave behind, written atomically, verified, and found again."""

from swabench.records.record import LandscapeRecord, Provenance, Record, agree, check_made_from
from swabench.records.store import RecordStore, has_runs, tuned_study

__all__ = [
    "LandscapeRecord",
    "Provenance",
    "Record",
    "RecordStore",
    "agree",
    "check_made_from",
    "has_runs",
    "tuned_study",
]
