"""Progress in lines: what is told, and when."""

from swabench.system.progress import LineProgress


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


def test_a_note_is_a_line() -> None:
    lines: list[str] = []
    LineProgress(lines.append).say("a note")
    assert lines == ["a note"]
