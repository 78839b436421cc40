"""Runs commands in forked processes, so that thousands of them need no import each.

What they need is imported here, once, and stays as it was then.
"""

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import swabench.analysis.publish
import swabench.runs.experiment  # noqa: F401
from swabench.cli import main
from tests.torture import stand_ins

LONGEST = 600.0
"""Seconds after which a command counts as hanging."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code; minus the signal's number where it was killed.
        out: What it wrote to standard output.
        errors: What it wrote to standard error.
        seconds: How long it ran, until somebody looked.
        hung: Whether it had to be killed, as it did not end.
    """

    code: int
    out: str
    errors: str
    seconds: float
    hung: bool = False

    @property
    def has_traceback(self) -> bool:
        """Whether an error of ours escaped."""
        return "Traceback (most recent call last)" in self.errors


class Command:
    """A `swabench` command in a process of its own.

    Args:
        arguments: Of the command line.
        folder: Where it runs.
        environment: What is added to the environment.
        prepare: Called in the new process before the command, to put a fault in place.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._began = time.monotonic()
        self._waited = False
        self._out, self._errors = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115
        sys.stdout.flush()
        sys.stderr.flush()
        self.process = os.fork()
        if self.process == 0:
            os._exit(self._run(arguments, folder, environment, prepare))

    def kill(self) -> None:
        """End it at once; nothing where it has ended, as long as nobody has waited for it."""
        os.kill(self.process, signal.SIGKILL)

    def end(self) -> None:
        """End it, if nobody has waited for its end."""
        if not self._waited:
            self.kill()
            self.wait()

    def wait(self) -> Ended:
        """Its end; a command that hangs is killed."""
        deadline = time.monotonic() + LONGEST
        hung = False
        while True:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                break
            if time.monotonic() > deadline and not hung:
                self.kill()
                hung = True
            time.sleep(0.002)
        self._waited = True
        seconds = time.monotonic() - self._began
        texts = []
        for file in (self._out, self._errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        return Ended(os.waitstatus_to_exitcode(status), texts[0], texts[1], seconds, hung)

    def _run(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        prepare: Callable[[], None],
    ) -> int:
        """The command, in the child: never returns into the campaign."""
        try:
            os.dup2(self._out.fileno(), 1)
            os.dup2(self._errors.fileno(), 2)
            # Under pytest these would write to its own files.
            sys.stdout, sys.stderr = (open(fd, "w", closefd=False) for fd in (1, 2))  # noqa: SIM115
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.chdir(folder)
            os.environ.update(environment)
            sys.argv = ["swabench", *arguments]
            stand_ins.install()
            prepare()
            main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
        else:
            code = 0
        sys.stdout.flush()
        sys.stderr.flush()
        return code


def run(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    prepare: Callable[[], None] = lambda: None,
) -> Ended:
    """Run a command to its end."""
    return Command(arguments, folder, environment, prepare).wait()
