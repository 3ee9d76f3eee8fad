"""The command line: which commands there are, and how each of them may end."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from shardgen.commands.generate import generate_command
from shardgen.commands.inspect import inspect_command
from shardgen.commands.preview import preview_command
from shardgen.commands.rebuild import rebuild_command
from shardgen.commands.recipe import recipe_commands
from shardgen.commands.report import report_command
from shardgen.commands.unpack import unpack_command
from shardgen.commands.verify import verify_command
from srshards import __version__
from srshards.errors import ReportedError
from srshards.extras import install_hint
from srshards.format import FormatError
from srshards.process.shortages import explained, reason_of
from srshards.storage.store import StoreError
from srshards.terminal.help import Group


class _Terminated(BaseException):
    """SIGTERM or SIGHUP arrived. As Ctrl-C, it is no Exception: code that catches those must not take it for one."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line. Exit codes: 0 done, 1 the work failed, 2 the command was wrong, 129/130/143 interrupted."""
    signal.signal(signal.SIGTERM, _raise_terminated)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, _raise_terminated)
    try:
        commands.main(args=args, prog_name="shardgen", standalone_mode=False)
    except (ReportedError, FormatError, StoreError) as error:
        click.echo(f"Error: {explained(str(error), error)}", err=True)
        sys.exit(getattr(error, "exit_code", 1))
    except click.Abort as abort:
        if isinstance(abort.__cause__, KeyboardInterrupt):  # click turns one into the other
            _say_interrupted(args)
            sys.exit(130)
        click.echo("\nStopped before anything was changed. (--auto asks nothing.)", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except _Terminated as terminated:
        _say_interrupted(args)
        sys.exit(128 + terminated.signal_number)
    except ModuleNotFoundError as error:
        if (hint := install_hint(error)) is None:
            raise
        click.echo(f"Error: {hint}", err=True)
        sys.exit(2)
    except Exception as error:
        if (reason := reason_of(error)) is None:  # a fault of the program
            raise
        click.echo(f"Error: {explained(reason, error)}", err=True)
        sys.exit(1)
    sys.exit(0)


def _raise_terminated(signal_number: int, frame: FrameType | None) -> NoReturn:
    if signal_number == signal.SIGHUP:  # a terminal that is closed sends one, and so does its shell
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise _Terminated(signal_number)


def _say_interrupted(args: Sequence[str] | None) -> None:
    is_generate = list(args or sys.argv[1:])[:1] == ["generate"]
    way_on = " Finished shards are kept; the same command goes on from here." if is_generate else ""
    click.echo(f"\nInterrupted.{way_on}", err=True)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="shardgen")
def commands() -> None:
    """Make super-resolution training data: photos become WebDataset shards of HR / LR / upsampled triplets.

    \b
    Examples:
      shardgen generate -i photos -o shards -s 2 4 --sample 0.01
      shardgen inspect shards/scale_4x
    """


for _command in (
    generate_command,
    inspect_command,
    verify_command,
    preview_command,
    report_command,
    unpack_command,
    rebuild_command,
    recipe_commands,
):
    commands.add_command(_command)
