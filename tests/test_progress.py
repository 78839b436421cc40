"""Progress in lines and as a bar: what is told, and when."""

import io
import re

import pytest
from rich.console import Console

from swabench.runs.places.pool import Event, Note
from swabench.runs.places.worker import _Passed
from swabench.system.progress import LineProgress, SilentProgress, TerminalProgress, duration


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_say_what_is_done_and_the_time_to_go() -> None:
    lines: list[str] = []
    clock = Clock()
    with LineProgress(lines.append, seconds=10, clock=clock).task("work", 8, "parts") as advance:
        clock.now += 9
        advance(1)
        assert lines == []  # not every step is told
        clock.now += 11
        advance(1)  # 2 parts in 20 seconds: six more take 60
        clock.now += 4
        advance(1)
        clock.now += 16
        advance(2)  # 5 in 40: three more take 24
        clock.now += 10
        advance(3)
    assert lines == [
        "work: 2 of 8 parts, 60 s to go",
        "work: 5 of 8 parts, 24 s to go",
        "work: 8 of 8 parts, 50 s",
    ]


def test_what_was_done_before_tells_nothing_about_the_time_to_go() -> None:
    lines: list[str] = []
    clock = Clock()
    with LineProgress(lines.append, seconds=10, clock=clock).task("work", 8, "parts") as advance:
        advance(0)
        clock.now += 10
        advance(4, before=True)  # nothing to tell a speed by
        clock.now += 10
        advance(1)  # one part in 20 seconds: three more take 60
        clock.now += 10
        advance(2)
        advance(1)
    assert lines == [
        "work: 5 of 8 parts, 60 s to go",
        "work: 7 of 8 parts, 10 s to go",
        "work: 8 of 8 parts, 30 s",
    ]


def test_a_note_is_a_line() -> None:
    lines: list[str] = []
    LineProgress(lines.append).say("a note")
    assert lines == ["a note"]


def test_lines_are_ten_seconds_apart() -> None:
    lines: list[str] = []
    clock = Clock()
    with LineProgress(lines.append, clock=clock).task("work", 100, "parts") as advance:
        for _ in range(50):
            clock.now += 1
            advance(1)
        assert [line.split(" parts")[0] for line in lines] == [
            f"work: {done} of 100" for done in (10, 20, 30, 40, 50)
        ]


def test_a_bar_shows_what_is_done_of_how_much() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100, color_system=None)
    progress = TerminalProgress(console)
    progress.say("[b]a note[/b]")
    assert text.getvalue() == "[b]a note[/b]\n"
    with progress.task("work", 7, "parts") as advance:
        advance(2)
        advance(4)
    shown = text.getvalue()
    assert re.search(r"work .* 6/7 parts 0:00:0\d to go ", shown)


def test_a_piece_of_work_has_a_line_if_it_took_long() -> None:
    lines: list[str] = []
    text = io.StringIO()
    bar = TerminalProgress(Console(file=text, force_terminal=True, width=100, color_system=None))
    for progress in (LineProgress(lines.append), bar):
        progress.tell_done("swa at seed 3", 9.9)
        progress.tell_done("pswa at seed 4", 150.5)
    assert lines == ["pswa at seed 4, 3 min"]
    assert text.getvalue() == "pswa at seed 4, 3 min\n"


def test_a_worker_leaves_it_to_its_master_to_tell_what_is_done() -> None:
    events: list[Event] = []
    progress = _Passed(events.append)
    progress.tell_done("pswa at seed 4", 150.5)
    progress.say("a note")
    assert events == [Note("a note")]


def test_silence_tells_nothing() -> None:
    silent = SilentProgress()
    silent.say("a note")
    silent.tell_done("pswa at seed 4", 150.5)
    with silent.task("work", 2, "parts") as advance:
        advance(2)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 s"),
        (1.4, "1 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (150.5, "3 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (86_400, "24.0 h"),
    ],
)
def test_a_time_is_told_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_bars_time_to_go_is_from_what_was_done_now() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100, color_system=None)
    clock = iter(float(second) for second in range(10_000))
    console.get_time = lambda: next(clock)
    with TerminalProgress(console).task("work", 1000, "parts") as advance:
        advance(900, before=True)
        advance(1)
    hours, minutes, seconds = re.findall(r"to go (\d+):(\d+):(\d+)", text.getvalue())[-1]
    # One part in some seconds, and 99 of them are left; with those of before it would be none.
    assert int(hours) * 3600 + int(minutes) * 60 + int(seconds) >= 99


def test_a_warning_is_told_to_who_wants_no_progress() -> None:
    lines: list[str] = []
    quiet = SilentProgress(lines.append)
    quiet.say("a note")
    quiet.warn("a warning")
    assert lines == ["a warning"]
    LineProgress(lines.append).warn("another")
    assert lines == ["a warning", "another"]
    SilentProgress().warn("to nobody")


def test_an_end_need_not_be_told() -> None:
    lines: list[str] = []
    clock = Clock()
    progress = LineProgress(lines.append, seconds=10, clock=clock, tells_ends=False)
    with progress.task("work", 2, "parts") as advance:
        clock.now += 11
        advance(1)
        advance(1)
    assert lines == ["work: 1 of 2 parts, 11 s to go"]
