"""How results are printed: whole lines, tables in their places, numbers and times in words."""

import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from swabench.cli import printing
from swabench.cli.printing import numbers, print_table, progress, say, say_json
from swabench.system.progress import LineProgress, SilentProgress, TerminalProgress

FRAME = pd.DataFrame(
    {
        "Method": ["sgd", "swa-cyclical"],
        "Accuracy, %": ["9.5", "100.25"],
        "Verdict": ["no", "confirmed"],
    }
)


def test_a_long_line_stays_one_line() -> None:
    """Whoever reads it by a program finds it whole."""
    text = io.StringIO()
    say("word " * 100, to=Console(file=text, width=40))
    assert text.getvalue() == "word " * 100 + "\n"


def test_what_is_no_number_is_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    say_json(
        {
            "none": [math.nan, math.inf, -math.inf, None],
            "numbers": (np.float64(0.5), np.int64(3), np.float32(np.nan), 2, True),
            "inner": [{"title": "Größe", 5: np.bool_(False)}],
        }
    )
    printed = capsys.readouterr().out
    assert json.loads(printed) == {
        "none": [None] * 4,
        "numbers": [0.5, 3, None, 2, True],
        "inner": [{"title": "Größe", "5": False}],
    }
    assert "Größe" in printed


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True)
    assert isinstance(progress(quiet=True), SilentProgress)
    lines = progress()
    assert isinstance(lines, LineProgress)
    lines.say("a note")
    assert capsys.readouterr() == ("", "a note\n")
    monkeypatch.setattr(printing, "err", terminal)
    bar = progress()
    assert isinstance(bar, TerminalProgress)
    bar.say("a note")
    assert shown.getvalue() == "a note\n"
    assert isinstance(progress(quiet=True), SilentProgress)


def test_words_stand_to_the_left_and_numbers_to_the_right() -> None:
    text = io.StringIO()
    print_table("A table of [b]two[/b]", FRAME, Console(file=text, width=100))
    lines = text.getvalue().splitlines()
    assert lines[0].strip() == "A table of [b]two[/b]"
    first, second = (next(line for line in lines if name in line) for name in FRAME["Method"])
    for name in FRAME.columns:
        assert any(name in line for line in lines)
    assert first.index("9.5") + 3 == second.index("100.25") + 6
    assert first.index("no") == second.index("confirmed")
    assert first.index("sgd") == second.index("swa-cyclical")


def test_a_number_that_diverged_stands_among_numbers() -> None:
    text = io.StringIO()
    lost = FRAME.assign(**{"Accuracy, %": ["diverged (1 of 2)", "100.25"]})
    print_table("A table", lost, Console(file=text, width=100))
    first, second = (n for n in text.getvalue().splitlines() if "sgd" in n or "swa-" in n)
    assert first.index("of 2)") + 5 == second.index("100.25") + 6


def test_a_table_for_a_file_is_wide_and_one_for_a_terminal_as_wide_as_that(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    wide = FRAME.assign(Note="n" * 60)
    for terminal, most in ((False, printing.LOG_WIDTH), (True, 50)):
        monkeypatch.setattr(printing, "out", SimpleNamespace(is_terminal=terminal))
        print_table("A table", wide)
        lines = capsys.readouterr().out.splitlines()
        assert 40 < max(map(len, lines)) <= most
        assert any("n" * 60 in line for line in lines) != terminal


def test_numbers_have_six_decimals() -> None:
    assert numbers([0.1306604762738429, 0.5]) == "0.130660, 0.500000"
