"""Loads a study: one YAML file, laid over those that it extends, and checked."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from swabench.study.settings import Settings
from swabench.study.study import Study
from swabench.system.errors import InputError


class _StrictLoader(yaml.SafeLoader):
    """YAML without silent surprises: a key given twice is an error."""

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
    if path.is_file():
        return path
    bundled = bundled_folder() / f"{config}.yaml"
    if bundled.is_file():
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
        raise InputError(_in_words(path, error)) from None
    if study.tuning and study.tuning.chosen:
        raise InputError(
            f"{path}: tuning.chosen: is for `swabench tune`, which writes choices.yaml in the "
            "study's results; take it out"
        )
    return study


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a study is a mapping of keys, found {type(content).__name__}")
    return content


def _merged(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A study's keys over those of the study it extends."""
    if path.resolve() in above:
        raise InputError(f"{path}: extends: the studies extend each other in a circle")
    own = _read_yaml(path)
    parent = own.pop("extends", None)
    if parent is None:
        return _with_own_paths(own, path)
    beside = (path.parent / f"{parent}{suffix}" for suffix in ("", ".yaml"))
    # A study of one's own may extend the bundled one of the same name.
    others = [file for file in beside if file.is_file() and not path.samefile(file)]
    try:
        parent_path = others[0] if others else find_study(str(parent))
    except InputError:
        raise InputError(
            f"{path}: extends: {parent!r} is neither a study beside it nor a bundled one "
            f"({', '.join(bundled_studies())})"
        ) from None
    base = _merged(parent_path, (*above, path.resolve()))
    base.pop("name", None)
    if own.keys() & _WHAT_THE_PAPER_RAN:
        base = _without_paper(base)
    return _overlay(base, _with_own_paths(own, path))


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
        try:
            found = (path.parent / Path(within[key]).expanduser()).resolve()
            is_path = key == "folder" or found.is_file()
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{path}: {'.'.join((*sections, key))}: {within[key]!r} cannot be a path ({error})"
            ) from None
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


def _in_words(path: Path, error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(_keys(problem["loc"]))
        found = problem["input"]
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown key"
        elif problem["type"] == "union_tag_invalid":
            choice = problem["ctx"]
            message = f"unknown kind {choice['tag']!r}; choose from {choice['expected_tags']}"
        shown = f", found {found!r}" if not isinstance(found, dict | Settings) else ""
        lines.append(f"{path}: {key + ': ' if key else ''}{message}{shown}")
    return "\n".join(lines)


def _keys(places: Sequence[int | str]) -> list[str]:
    """The file's keys on the way to a problem: a union's tag, after its key, is none of them."""
    unions = {"rate", "optimizer", "averaging"}
    pairs = zip(["", *places], places, strict=False)
    return [str(place) for before, place in pairs if before not in unions and place != "[key]"]
