"""`python -m swabench` is the `swabench` command."""

from swabench.cli import main

main()
