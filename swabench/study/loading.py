"""Loads a study: one YAML file, laid over those that it extends, and checked.

A file may be anything, so what is read of it is bounded before it is looked at.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from swabench.study.settings import Settings
from swabench.study.study import Study
from swabench.system.errors import InputError, cut, in_short, printable
from swabench.system.files import is_file

MOST_BYTES = 200_000
"""Of a file; the longest study there is has a tenth of that, and reading this takes seconds."""
MOST_PARTS = 50_000
"""Of a study, keys and values, each counted as often as an alias repeats it."""
MOST_TOLD = 10
"""Mistakes in a study that are told; the others are counted."""
LONGEST_LINE = 1000
"""Characters of the line that tells a mistake."""
MOST_EXTENDED = 20
LARGEST_BITS = 3322
"""Of a whole number: a thousand digits."""


class _StrictLoader(yaml.SafeLoader):
    """YAML without silent surprises.

    A key given twice is an error; so are aliases that repeat each other until there are more
    parts than memory holds, and whole numbers that are too long to be written again.
    """

    def construct_document(self, node: yaml.Node) -> Any:
        if _parts(node, {}) > MOST_PARTS:
            raise yaml.constructor.ConstructorError(
                None, None, f"its aliases make more than {MOST_PARTS:,} parts of it; write fewer"
            )
        return super().construct_document(node)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number: int = super().construct_yaml_int(node)
        if number.bit_length() > LARGEST_BITS:
            raise yaml.constructor.ConstructorError(
                None, None, "found a number of a thousand digits", node.start_mark
            )
        return number

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<` may be given anew
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)


def _parts(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """How many nodes a document has where every alias is written out; a circle is an error."""
    if node not in known:
        known[node] = MOST_PARTS + 1  # where it is met again within itself
        within = node.value if isinstance(node, yaml.CollectionNode) else ()
        below = (each for pair in within for each in (pair if isinstance(pair, tuple) else [pair]))
        known[node] = 1 + sum(_parts(each, known) for each in below)
    return known[node]


def bundled_folder() -> Path:
    """Where the bundled studies lie: in the installed package, else beside a source checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def bundled_studies() -> list[str]:
    """Names of the bundled studies."""
    return sorted(path.stem for path in bundled_folder().glob("*.yaml"))


def find_study(config: str) -> Path:
    """The file behind `--config`: a path, or the name of a bundled study.

    Raises:
        InputError: There is neither.
    """
    path = Path(config)
    if is_file(path, "--config"):
        return path
    bundled = bundled_folder() / f"{config}.yaml"
    if is_file(bundled, "--config"):
        return bundled
    raise InputError(
        f"--config: {config!r} is neither a file nor a bundled study; "
        f"bundled are {', '.join(bundled_studies())}"
    )


def load_study(config: str) -> Study:
    """Load a study by path or bundled name, with what it extends, and check it.

    Raises:
        InputError: Names the file, the key, what was found there and what is allowed.
    """
    path = find_study(config)
    merged = _merged(path, ())
    merged.setdefault("name", path.stem)
    try:
        study = Study.model_validate(merged)
    except ValidationError as error:
        raise InputError(_in_words(path, merged, error)) from None
    if study.tuning and study.tuning.chosen:
        raise InputError(
            f"{path}: tuning.chosen: is for `swabench tune`, which writes choices.yaml in the "
            "study's results; take it out"
        )
    return study


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if len(text) > MOST_BYTES:
        raise InputError(
            f"{path}: has {len(text):,} characters; a study has {MOST_BYTES:,} at most"
        )
    try:
        content = yaml.load(text, _StrictLoader)
    except Exception as error:  # of a tag that does not fit, PyYAML passes on whatever comes up
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            printable(f"{path}: is not valid YAML: {cut(reason, LONGEST_LINE)}")
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a study is a mapping of keys, found {type(content).__name__}")
    return content


def _merged(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A study's keys over those of the study it extends."""
    if path.resolve() in above:
        raise InputError(f"{path}: extends: the studies extend each other in a circle")
    if len(above) > MOST_EXTENDED:
        raise InputError(f"{path}: extends: more than {MOST_EXTENDED} studies extend each other")
    own = _read_yaml(path)
    parent = own.pop("extends", None)
    if parent is None:
        return _with_own_paths(own, path)
    base = _merged(_extended(parent, path), (*above, path.resolve()))
    base.pop("name", None)
    if own.keys() & _WHAT_THE_PAPER_RAN:
        base = _without_paper(base)
    return _overlay(base, _with_own_paths(own, path))


def _extended(parent: object, path: Path) -> Path:
    """The file of the study that a study extends: beside it, or a bundled one."""
    where = f"{path}: extends"
    if isinstance(parent, str):
        # A study of one's own may extend the bundled one of the same name.
        for file in (path.parent / f"{parent}{suffix}" for suffix in ("", ".yaml")):
            if is_file(file, where) and not path.samefile(file):
                return file
        bundled = bundled_folder() / f"{parent}.yaml"
        if is_file(bundled, where):
            return bundled
    raise InputError(
        f"{where}: {in_short(parent)} is neither a study beside it nor a bundled one "
        f"({', '.join(bundled_studies())})"
    )


_WHAT_THE_PAPER_RAN = {"data", "backbone", "pretrain", "finetune"}


def _without_paper(base: dict[str, Any]) -> dict[str, Any]:
    """Without the paper's numbers: they belong to the paper's study, not to one on other data."""
    found = dict(base)
    if isinstance(base.get("pretrain"), dict):
        found["pretrain"] = {**base["pretrain"], "paper_accuracy": None}
    if isinstance(base.get("methods"), dict):
        found["methods"] = {
            name: {**spec, "paper_accuracy": None} if isinstance(spec, dict) else spec
            for name, spec in base["methods"].items()
        }
    return found


_PATHS = (("data", "folder"), ("backbone", "weights"), ("backbone", "weights", "study"))
"""Settings that are, or may be, paths."""


def _with_own_paths(own: dict[str, Any], path: Path) -> dict[str, Any]:
    """A study's relative paths are meant from where it lies."""
    result = copy.deepcopy(own)
    for *sections, key in _PATHS:
        within: Any = result
        for section in sections:
            within = within.get(section) if isinstance(within, dict) else None
        if not isinstance(within, dict) or not isinstance(within.get(key), str):
            continue
        where = f"{path}: {'.'.join((*sections, key))}"
        try:
            found = (path.parent / Path(within[key]).expanduser()).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{where}: {in_short(within[key])} cannot be a path ({error})"
            ) from None
        is_path = key == "folder" or is_file(found, where)
        if is_path:
            within[key] = str(found)
    return result


def _overlay(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Sections merge key by key, their values are replaced whole; `null` takes a method out."""
    result = dict(base)
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            section = {**base[key], **value}
            if key in ("methods", "controls"):
                section = {name: spec for name, spec in section.items() if spec is not None}
            result[key] = section
        else:
            result[key] = value
    return result


def _in_words(path: Path, content: object, error: ValidationError) -> str:
    lines = []
    problems = error.errors(include_url=False)
    for problem in problems[:MOST_TOLD]:
        key = ".".join(_keys(content, problem["loc"], problem["type"] == "missing"))
        found = problem["input"]
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown key"
        elif problem["type"] == "union_tag_invalid":
            choice = problem["ctx"]
            message = f"unknown kind {choice['tag']!r}; choose from {choice['expected_tags']}"
        shown = "" if isinstance(found, dict | Settings) else f", found {in_short(found)}"
        told = cut(f"{key + ': ' if key else ''}{message}", LONGEST_LINE)
        lines.append(printable(f"{path}: {told}{shown}"))
    if more := len(problems[MOST_TOLD:]):
        lines.append(f"{path}: and {more} mistakes more")
    return "\n".join(lines)


def _keys(content: object, places: Sequence[int | str], lacks_the_last: bool) -> list[str]:
    """The file's keys on the way to a problem, without the kinds that pydantic tried there."""
    keys = []
    for place in places:
        try:
            content = content[place]  # type: ignore[index]  # whatever it is
        except (KeyError, IndexError, TypeError):
            continue
        keys.append(cut(str(place)))
    return [*keys, str(places[-1])] if lacks_the_last else keys
