"""The command line: parses, calls, prints. The work is done elsewhere."""

from swabench.cli import documents, inspection, work
from swabench.cli.app import app, main

__all__ = ["app", "documents", "inspection", "main", "work"]
