"""The command line: parses, calls, prints. The work is done elsewhere."""

from swabench.cli.commands import app, main

__all__ = ["app", "main"]
