"""What tuning chose, as a file that a person reads and that is committed."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from swabench.study.tuning import Choices
from swabench.system.errors import InputError

_HEAD = """\
# What `swabench tune` chose for each family: of its trials that which does best on the validation
# images, over the tuning seeds. The study runs with these settings as long as its search space is
# the one whose digest stands here. `at_edge` names settings whose best value is the smallest or
# largest that was tried: a better one may lie beyond.
"""


def choices_text(choices: Choices) -> str:
    """The file's content."""
    content = choices.model_dump(mode="json")
    return _HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def read_choices(path: Path) -> Choices:
    """Read the file.

    Raises:
        InputError: It cannot be read, or is not as `swabench tune` writes it.
    """
    try:
        return Choices.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
    raise InputError(
        f"{path}: cannot be read as choices ({reason}); delete it and run `swabench tune` again"
    )
