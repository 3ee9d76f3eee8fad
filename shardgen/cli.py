"""Command line of shardgen: the commands, their exit codes and how errors are reported."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from shardgen.commands.generate import generate_command
from shardgen.commands.inspect import inspect_command
from shardgen.commands.pack import pack_command
from shardgen.commands.preview import preview_command
from shardgen.commands.rebuild import rebuild_command
from shardgen.commands.recipe import recipe_commands
from shardgen.commands.report import report_command
from shardgen.commands.run import NotConfirmedError
from shardgen.commands.unpack import unpack_command
from shardgen.commands.verify import verify_command
from shardgen.engines.base import ShardCrash
from shardgen.planning.sources import printable
from srshards import __version__
from srshards.errors import ReportedError
from srshards.extras import install_hint
from srshards.format import FormatError
from srshards.process.shortages import explained, reason_of
from srshards.storage.store import StoreError
from srshards.terminal.help import Group

_COMPLETION = "_SHARDGEN_COMPLETE"  # the shell's completion script calls the command with this variable set


class _Terminated(BaseException):
    """SIGTERM or SIGHUP. Not an Exception, like KeyboardInterrupt, so that `except Exception` does not catch it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line. Exit codes: 0 success, 1 failure, 2 usage error, 129/130/143 interrupted by a signal."""
    signal.signal(signal.SIGTERM, _raise_terminated)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        signal.signal(signal.SIGHUP, _raise_terminated)
    try:
        # Shells complete the console script, and click derives the name of the variable from `prog_name`.
        name = "shardgen" if _COMPLETION in os.environ else "python -m shardgen"
        commands.main(args=args, prog_name=name, standalone_mode=False)
    except (ReportedError, FormatError, StoreError) as error:
        message = explained(str(error), error)
        _print_error(message if isinstance(error, ShardCrash) else printable(message))
        sys.exit(getattr(error, "exit_code", 1))
    except NotConfirmedError as error:
        click.echo(f"\nStopped; nothing was changed. {error}", err=True)
        sys.exit(1)
    except click.Abort:  # click converts KeyboardInterrupt to it
        _print_interrupted(args)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except _Terminated as terminated:
        _print_interrupted(args)
        sys.exit(128 + terminated.signal_number)
    except ModuleNotFoundError as error:
        if (hint := install_hint(error)) is None:
            raise
        _print_error(hint)
        sys.exit(2)
    except Exception as error:
        if (reason := reason_of(error)) is None:  # a bug: show the traceback
            raise
        _print_error(printable(explained(reason, error)))
        sys.exit(1)
    sys.exit(0)


def _print_error(message: str) -> None:
    click.echo(f"Error: {message}", err=True)


def _raise_terminated(signal_number: int, frame: FrameType | None) -> NoReturn:
    if signal_number == signal.SIGHUP:  # a closing terminal sends one, and its shell a second one
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise _Terminated(signal_number)


def _print_interrupted(args: Sequence[str] | None) -> None:
    can_continue = list(args or sys.argv[1:])[:1] in (["generate"], ["pack"])
    hint = " Finished shards are kept; run the same command again to continue." if can_continue else ""
    click.echo(f"\nInterrupted.{hint}", err=True)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="shardgen")
def commands() -> None:
    """Generate super-resolution training data: photos to WebDataset shards of HR / LR / upsampled triplets.

    \b
    Examples:
      python -m shardgen generate -i photos -o shards -s 2 4 --sample 0.01
      python -m shardgen inspect shards/scale_4x
    """


for _command in (
    generate_command,
    pack_command,
    inspect_command,
    verify_command,
    preview_command,
    report_command,
    unpack_command,
    rebuild_command,
    recipe_commands,
):
    commands.add_command(_command)
