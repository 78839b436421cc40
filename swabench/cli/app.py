"""The program: its help, its exit codes, and what becomes of errors and interruptions."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from swabench import __version__
from swabench.cli.options import AT_END, PAUSE
from swabench.cli.printing import out, stop
from swabench.cli.streams import tolerant_streams
from swabench.study.loading import bundled_studies
from swabench.system.errors import SwabenchError, not_usable
from swabench.system.pausing import INTERRUPTED, Interrupted

RUN, WRITE, LOOK = "Run", "Write documents, from records alone", "Look"
"""What kinds of commands there are, in the order of the help."""


class Commands(TyperGroup):
    """Turns our own errors into words and exit codes; other errors are bugs and keep theirs."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands' names, kind by kind."""
        kinds = [RUN, WRITE, LOOK]
        return sorted(
            super().list_commands(ctx),
            key=lambda name: kinds.index(str(getattr(self.commands[name], "rich_help_panel", ""))),
        )

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            with PAUSE.listening(), AT_END:
                return super().invoke(ctx)
        except SwabenchError as error:
            stop(f"error: {error}", error.exit_code)
        except OSError as error:  # of a file that no message of ours is about
            told = not_usable(error)
            stop(f"error: {told}", told.exit_code)
        except KeyboardInterrupt as error:
            code = error.exit_code if isinstance(error, Interrupted) else INTERRUPTED
            reason = str(error) or "interrupted"
            stop(f"{reason}: what is done is kept; the same command resumes", code)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "Does averaging weights help here, and by how much?\n\n"
        "Pretrains ResNet-50 by Adam, fine-tunes it by SGD, SWA and Periodic SWA on the same "
        "minibatches, and compares them over seeds. A study is one YAML file; "
        f"bundled are {', '.join(bundled_studies())}.\n\n"
        "Start with: [bold]swabench reproduce --config smoke[/bold]"
    ),
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted, 143 ended "
    "(SIGTERM; 129 by SIGHUP). What was interrupted goes on by the same command.",
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(__version__, highlight=False)
        raise typer.Exit


def main() -> None:
    """Entry point of the `swabench` command."""
    with tolerant_streams():
        app()
