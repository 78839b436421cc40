"""What a study file may hold and a study may not: told by file and key, at once, and never else.

Bad values are put at every place of a study that its own classes name, so that a setting added
later is tried too.
"""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo
from typer.testing import CliRunner

from swabench.cli import app
from swabench.study.loading import load_study
from swabench.study.optimizers import ScheduleFreeSGD
from swabench.study.settings import Settings
from swabench.study.stages import Stage
from swabench.study.study import Study
from swabench.study.tuning import Choice, Choices, Tuning
from swabench.system.errors import InputError
from tests.test_settings import NAMED, kinds

ROOT = Path(__file__).parents[1]
SECONDS = 5.0
"""Of this process, after which a refusal comes too late; a busy machine does not count."""

TELLS_KINDS_APART = ("name", "plan", "schedule")

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """A setting of a study, where it stands in a file, and a study that has it there."""

    keys: Keys
    kind: type[Settings]
    field: FieldInfo
    around: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.kind.__name__}:{'.'.join(map(str, self.keys))}"

    def holding(self, value: str) -> str:
        """The study with another value there, as a file."""
        return json.dumps(_with(self.around, self.keys, "@")).replace('"@"', value)

    @property
    def annotations(self) -> set[Any]:
        return set(_parts(self.field.annotation))

    @property
    def is_number(self) -> bool:
        return bool({int, float} & self.annotations) and not self._holds_settings

    @property
    def may_be_null(self) -> bool:
        # `null` takes out the controls that a study inherits.
        return type(None) in self.annotations or self.keys == ("controls",)

    @property
    def tells_kinds_apart(self) -> bool:
        return get_origin(self.field.annotation) is Literal and self.keys[-1] in TELLS_KINDS_APART

    @property
    def _holds_settings(self) -> bool:
        return any(isinstance(a, type) and issubclass(a, Settings) for a in self.annotations)


def _parts(annotation: Any) -> Iterator[Any]:
    """All types that an annotation is made of."""
    yield annotation
    for each in get_args(annotation):
        yield from _parts(each)


def _with(content: dict[str, Any], keys: Keys, value: object) -> dict[str, Any]:
    first, *rest = keys
    inner = _with(content.get(str(first), {}), tuple(rest), value) if rest else value
    return {**content, str(first): inner}


def _plain(value: Any) -> Any:
    """What a file would hold."""
    if isinstance(value, Settings):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value


def places(kind: type[Settings], keys: Keys, around: dict[str, Any]) -> Iterator[Place]:
    """Every setting of a part of a study, and of the parts below."""
    for name, field in kind.model_fields.items():
        here = (*keys, name)
        yield Place(here, kind, field, around)
        below = [a for a in _parts(field.annotation) if isinstance(a, type)]
        many = any(get_origin(a) is dict or a is dict for a in _parts(field.annotation))
        for each in below:
            if get_origin(each) or not issubclass(each, Settings) or each in (Choice, Choices):
                continue
            inner = (*here, "sgd" if name == "methods" else "other") if many else here
            # Of a stage, no optimizer that is for single methods.
            if each is ScheduleFreeSGD and issubclass(kind, Stage):
                continue
            yield from places(each, inner, _with(around, inner, _plain(_named(each))))


def _named(kind: type[Settings]) -> dict[str, Any]:
    """What must be named of a kind of settings, so that it fits the study around it."""
    if kind is Study:
        return {**NAMED[Study], "data": {"selection_images": 1}}
    if kind is Tuning:
        return {**NAMED[Tuning], "families": {"sgd": {"rate.learning_rate": [0.1]}}}
    return NAMED[kind]


PLACES = list(places(Study, (), _plain(_named(Study))))
# As a file has them. Bad wherever they stand:
BAD = {
    "a huge number": "1" + "0" * 400,
    "a number of thousands of digits": "0x" + "f" * 5000,
    "one that Python does not read": "9" * 5000,
    "a control character": r'"a\e[2J\ab"',
    "an end of a line within": r'"a\nb"',
    "half a character": r'"\ud800"',
    "a list in a list": "[[]]",
    "a mapping of no such key": "{no such key: [1]}",
    "a key that is no text": "{5: [1]}",
    "a moment": "2024-01-02 03:04:05",
    "a date": "2024-01-02",
    "a set": "!!set {one, two}",
    "no moment": "!!timestamp tomorrow",
    "no integer": "!!int ''",
    "no flag": "!!bool perhaps",
    "an unknown kind": "!!python/object:os.system {}",
    "an alias of nothing": "*nothing",
    "an alias of itself": "&a [*a]",
    "bytes": "!!binary gIGC",
}
BAD_NUMBERS = {
    "true": "true",
    "false": "false",
    "no number": ".nan",
    "infinite": ".inf",
    "below all": "-.inf",
    "the largest": "1.7e+308",
    "the least": "-1.7e+308",
    "no number in words": "nan",
    "infinite in words": "infinity",
    "beyond a number in words": "1e400",
    "empty": '""',
    "a word": "ÿ₃",
}


def refused(path: Path, text: str) -> str:
    """What is said of a study file; anything but an InputError, or a long wait, fails the test."""
    path.write_text(text, encoding="utf-8")
    return refused_file(path)


def refused_file(path: Path) -> str:
    began = time.process_time()
    with pytest.raises(InputError) as error:
        load_study(str(path))
    assert time.process_time() - began < SECONDS
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert all(char.isprintable() or char == "\n" for char in message)
    assert len(message) < 20_000
    return message


def test_every_setting_of_a_study_is_tried() -> None:
    tried = {place.kind for place in PLACES}
    bases = {kind for kind in kinds(Settings) if list(kinds(kind))}
    assert tried >= set(kinds(Settings)) - bases - {Choice, Choices}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_what_no_setting_takes_is_refused_by_file_and_key(place: Place, tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text(json.dumps(place.around))
    load_study(str(good))
    bad = dict(BAD)
    if place.is_number:
        bad |= BAD_NUMBERS
    if not place.may_be_null:
        bad["null"] = "null"
    for name, value in bad.items():
        message = refused(tmp_path / "bad.yaml", place.holding(value))
        # What tells kinds of settings apart is told with the section that it stands in.
        keys = place.keys[:-1] if place.tells_kinds_apart else place.keys
        named = "is not valid YAML" in message or ".".join(map(str, keys)) in message
        assert named, f"{name}: {message}"


def numbers_of(schema: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every number in a JSON schema, and where."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number") and "const" not in schema:
            yield at, schema
        for key, each in schema.items():
            yield from numbers_of(each, f"{at}.{key}")
    elif isinstance(schema, list):
        for each in schema:
            yield from numbers_of(each, at)


def test_no_number_of_a_study_is_without_limits() -> None:
    numbers = list(numbers_of(Study.model_json_schema()))
    assert len(numbers) > 80
    for at, schema in numbers:
        assert {"maximum", "exclusiveMaximum"} & schema.keys(), at
        assert {"minimum", "exclusiveMinimum"} & schema.keys(), at


HUGE = {
    "finetune.epochs": 10**9,
    "pretrain.epochs": 10**9,
    "finetune.batch_size": 10**30,
    "finetune.optimizer.weight_decay": 1e308,
    "methods.sgd.rate.learning_rate": 1e308,
    "methods.sgd.averaging.half_life_epochs": 1e308,
    "data.image_size": 10**9,
    "landscape.lines.points": 10**9,
    "landscape.plane.points": 10**5,
}


@pytest.mark.parametrize("key", HUGE)
def test_a_number_beyond_its_limit_is_told_with_the_limit(key: str, tmp_path: Path) -> None:
    message = refused(tmp_path / "huge.yaml", holding(key, json.dumps(HUGE[key])))
    assert f"{key}: Input should be less than or equal to" in message
    assert "less than or equal to" in message


def holding(key: str, value: str) -> str:
    """A study with a value at a dotted key, as a file."""
    return next(each for each in PLACES if ".".join(map(str, each.keys)) == key).holding(value)


# --- files that are no studies ---------------------------------------------------------------

MANY = "\n".join(f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))
FILES = {
    "aliases that multiply": (f"a: &a0 [lol]\n{MANY}\n", "its aliases make more than 50,000 parts"),
    "merged aliases that multiply": (
        "a0: &a0 {x: 1}\n"
        + "\n".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 40)),
        "its aliases make more than 50,000 parts",
    ),
    "many seeds": (
        f"seeds: [{', '.join(map(str, range(200_000)))}]",
        "a study has 200,000 at most",
    ),
    "many seeds that a study has room for": (f"seeds: {list(range(9_000)) * 2}", "seeds"),
    "deep brackets": ("a: " + "[" * 100_000, "is not valid YAML"),
    "deep mappings": ("{a: " * 20_000, "is not valid YAML"),
    "many mistakes": ("\n".join(f"k{i}: {i}" for i in range(10_000)), "mistakes more"),
    "two documents": ("a: 1\n---\nb: 2\n", "is not valid YAML"),
    "a tag": ("!!python/object/apply:os.system [ls]", "is not valid YAML"),
    "NUL": ("a: \x00", "is not valid YAML"),
    "a long key": (f"? {'k' * 100_000}\n: 1", "unknown key"),
    "a key that a terminal obeys": ('"\\e[2J": 1', r"\x1b[2J: unknown key"),
    "nothing": ("", "found NoneType"),
    "a number": ("5", "found int"),
    "extends a list": ("extends: [mnist]", "extends: ['mnist'] is neither"),
    "extends a number": ("extends: 5", "extends: 5 is neither"),
    "extends nothing there": ("extends: nowhere/at/all", "extends: 'nowhere/at/all' is neither"),
    "extends NUL": ('extends: "a\\0b"', "extends: "),
    "extends a long name": (f"extends: {'n' * 300}", "File name too long"),
    "extends itself": ("extends: bad.yaml", "neither"),
    "extends a file's inside": ("extends: bad.yaml/mnist", "neither"),
    "extends a user's": ("extends: ~nobody-of-that-name/x", "neither"),
    "extends a loop": ("extends: loop", "extends: "),
    "weights in a loop": ("extends: mnist\nbackbone: {weights: loop}", "backbone.weights: "),
    "weights of a long name": (f"extends: mnist\nbackbone: {{weights: {'n' * 300}}}", "too long"),
    "weights of a user": ("extends: mnist\nbackbone: {weights: ~nobody-of-that-name/x}", "weights"),
    "weights with NUL": ('extends: mnist\nbackbone: {weights: "a\\0b"}', "backbone.weights: "),
    "a folder with NUL": ('extends: mnist\ndata: {folder: "a\\0b"}', "data.folder: "),
    "a name that leaves": ("extends: mnist\nname: ../../etc", "name: use letters"),
    "a name from the root": ("extends: mnist\nname: /etc", "name: use letters"),
    "a name of dots": ("extends: mnist\nname: ..", "name: use letters"),
    "a method that leaves": ("extends: mnist\nmethods: {../sgd: {}}", "methods.../sgd: "),
    "a long name": (f"extends: mnist\nname: {'n' * 300}", "name: is longer than 200 bytes"),
    "a long method": (
        f"extends: mnist\nmethods: {{{'n' * 300}: null, {'m' * 300}: {{}}}}",
        "200 b",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_study_is_told_at_once(name: str, tmp_path: Path) -> None:
    text, told = FILES[name]
    (tmp_path / "loop").symlink_to("loop")
    assert told in refused(tmp_path / "bad.yaml", text)


def test_studies_that_extend_each_other_are_told(tmp_path: Path) -> None:
    for name, other in (("one", "two"), ("two", "three"), ("three", "two")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {other}")
    with pytest.raises(InputError, match=r"two\.yaml: extends: .* in a circle"):
        load_study(str(tmp_path / "one.yaml"))


def test_a_long_row_of_studies_that_extend_each_other_is_told(tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / f"s{number}.yaml").write_text(f"extends: s{number + 1}")
    with pytest.raises(InputError, match=r"extends: more than 20 studies extend each other"):
        load_study(str(tmp_path / "s0.yaml"))


def test_a_folder_that_cannot_be_entered_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in, because a superuser may enter all."""
    entered = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        if "locked" in path.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return entered(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    locked = tmp_path / "locked" / "mine.yaml"
    with pytest.raises(InputError, match=r"--config: .*mine.yaml' .*\(Permission denied\)"):
        load_study(str(locked))
    for key in ("extends: locked/mine", "extends: mnist\nbackbone: {weights: locked/w.pth}"):
        (tmp_path / "own.yaml").write_text(key)
        with pytest.raises(InputError, match=r"own\.yaml: .*\(Permission denied\)"):
            load_study(str(tmp_path / "own.yaml"))


def test_a_name_may_have_an_underscore(tmp_path: Path) -> None:
    (tmp_path / "my_study.yaml").write_text("extends: mnist\n")
    assert load_study(str(tmp_path / "my_study.yaml")).name == "my_study"


def test_a_title_may_be_a_block_whose_last_line_ends(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("extends: mnist\ntitle: >\n  In two\n  lines\n")
    assert load_study(str(tmp_path / "own.yaml")).title == "In two lines"


# --- by the command itself -------------------------------------------------------------------

SOME = {
    name: FILES[name][0]
    for name in (
        "aliases that multiply",
        "many seeds",
        "deep brackets",
        "NUL",
        "a key that a terminal obeys",
        "nothing",
        "extends NUL",
        "extends a long name",
        "extends itself",
        "weights in a loop",
        "a name that leaves",
        "a long name",
    )
} | {
    key: holding(key, value)
    for key, value in {
        "seeds": "!!timestamp tomorrow",
        "title": r'"\e]0;title\a"',
        "finetune.epochs": "1000000000",
        "finetune.batch_size": "1" + "0" * 30,
        "data.image_size": "true",
        "data.folder": "[]",
        "backbone.weights": "{study: 5}",
        "methods.sgd.rate.learning_rate": "1e308",
        "landscape.rays.length": "true",
        "tuning.families": "{sgd: {rate.learning_rate: [true]}}",
        "confidence": ".nan",
        "claims.alpha": "0x" + "f" * 5000,
    }.items()
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_the_command_tells_a_bad_file_and_writes_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(SOME[name], encoding="utf-8")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-m", "swabench", "reproduce", "--config", "bad.yaml"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "SWABENCH_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: bad.yaml: ")
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


OPTIONS = {
    "a long config": (["methods", "--config", "n" * 300], 2, "File name too long"),
    "a user's config": (["methods", "--config", "~nobody-of-that-name/x"], 2, "is neither a file"),
    "a config within a file": (["methods", "--config", "file/x"], 2, "is neither a file"),
    "a config in a loop": (["methods", "--config", "loop"], 2, "cannot be looked at"),
    "a folder as config": (["methods", "--config", "."], 2, "is neither a file"),
    "a seed too large": (["table", "--seeds", f"{2**32},1"], 2, "a seed is a number from 0"),
    "a span that falls": (["table", "--seeds", "0,3-1"], 2, "--seeds: '0,3-1'; give a number"),
    "many seeds": (["table", "--seeds", "0-9999"], 2, "no records of study 'mnist'"),
    "long results": (["pretrain", "--results", "n" * 300], 2, "File name too long"),
    "results in a loop": (["pretrain", "--results", "loop"], 2, "loop"),
    "results in a file": (["pretrain", "--results", "file"], 2, "where a folder belongs"),
    "nowhere to run": (["pretrain", "--on", "moon"], 2, "choose from local, processes, ray"),
    "an address of no cluster": (["pretrain", "--on", "processes:2"], 2, "--on: 'processes:2'"),
    "jobs of one process": (["pretrain", "--on", "local", "-j", "3"], 2, "leave one out"),
    "no jobs": (["pretrain", "--jobs", "0"], 2, "--jobs"),
    "a share of nothing": (["pretrain", "--shard", "0/2"], 2, "give a share such as 1/8"),
    "more shares than seeds": (["pretrain", "-s", "1", "--shard", "1/2"], 2, "has no seed"),
    "nowhere to plan for": (["validate", "--on", "moon"], 2, "choose from local, processes, ray"),
    "jobs nowhere": (["validate", "-j", "2", "--on", "moon"], 2, "choose from local, processes"),
    "a long output": (["export", "-m", "swa", "-o", f"{'n' * 300}.pth"], 2, "File name too long"),
    "an output within a file": (["export", "-m", "swa", "-o", "file/x.pth"], 2, "where a folder"),
    "an output in a loop": (["export", "-m", "swa", "-o", "loop/x.pth"], 2, "loop/x.pth"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_a_bad_option_is_told_and_writes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, code, told = OPTIONS[name]
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWABENCH_CACHE", str(tmp_path / "cache"))
    before = sorted(tmp_path.rglob("*"))
    began = time.process_time()
    done = CliRunner().invoke(app, arguments)
    assert time.process_time() - began < SECONDS + 5  # what is imported takes its time
    assert isinstance(done.exception, SystemExit), done.exception
    assert (done.exit_code, told in " ".join(done.stderr.split())) == (code, True), done.stderr
    assert sorted(tmp_path.rglob("*")) == before
