"""What happens where results and errors cannot be printed: no traceback, and a code that says so.

In processes of their own, because the streams are the process's.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from swabench.cli.streams import CLOSED

METHODS = ("methods", "--config", "smoke")
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a shell's line comes to; `swabench` in it is the command."""
    command = line.replace("swabench ", f'"{sys.executable}" -m swabench ')
    whole: Mapping[str, str] = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=whole, check=False,
        encoding="utf-8", errors="replace",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "encoding"),
    [
        ("--help", "ascii"),
        ("--help", "latin-1"),
        ("methods --config smoke", "ascii"),
        ("methods --config smoke", "latin-1"),
        ("tune --config smoke", "ascii"),
    ],
)
def test_what_an_encoding_lacks_is_printed_all_the_same(command: str, encoding: str) -> None:
    done = shell(f"swabench {command}", PYTHONIOENCODING=encoding)
    assert done.returncode == (2 if "tune" in command else 0)
    assert "Traceback" not in done.stderr
    assert "Exit codes" in done.stdout or "tun" in done.stdout + done.stderr


@pytest.mark.slow
def test_json_spells_what_an_encoding_lacks(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("extends: smoke\ntitle: Größe ₂\n", encoding="utf-8")
    code = (
        "import sys; from swabench.cli.printing import say_json; "
        "from swabench.study.loading import load_study; "
        f"say_json({{'title': load_study({str(tmp_path / 'own.yaml')!r}).title}})"
    )
    done = shell(f'"{sys.executable}" -c "{code}"', PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout) == {"title": "Größe ₂"}


@needs_full
@pytest.mark.slow
@pytest.mark.parametrize("command", ["--help", "--version", "methods --config smoke"])
def test_a_full_disk_for_results_is_told_and_fails(command: str) -> None:
    done = shell(f"swabench {command} > /dev/full")
    assert done.returncode == 1
    assert done.stderr == (
        "error: standard output: cannot be written (No space left on device); send it elsewhere\n"
    )


@needs_full
@pytest.mark.slow
def test_errors_that_nobody_can_be_told_keep_their_code() -> None:
    assert shell("swabench methods --config nowhere 2> /dev/full").returncode == 2
    assert shell("swabench methods --config smoke 2> /dev/full").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", ["--help", "methods --config mnist"])
def test_a_closed_pipe_ends_the_command_quietly(command: str) -> None:
    done = shell(f"swabench {command} | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (CLOSED, "")


@pytest.mark.slow
def test_streams_that_are_not_there_are_no_mistake() -> None:
    assert shell("swabench methods --config smoke >&- 2>&-").returncode == 0
    assert shell("swabench methods --config nowhere >&- 2>&-").returncode == 2


@pytest.mark.slow
def test_what_a_terminal_would_obey_is_spelled_out(tmp_path: Path) -> None:
    done = shell(r"swabench methods --config $'a\e[2Jb'")
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert r"\x1b[2J" in done.stderr
