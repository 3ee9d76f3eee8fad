"""The command line: its commands, and how exceptions become messages and exit codes."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from srshards import __version__
from srshards.errors import ReportedError, UsageError
from srshards.extras import install_hint
from srshards.process.interrupt import loading
from srshards.process.shortages import explained, reason_of
from srshards.storage.store import StoreError
from srshards.terminal.help import Group
from srshards.terminal.text import did_you_mean
from trainer.commands.evaluate import evaluate_command
from trainer.commands.export import export_command
from trainer.commands.models import models_command
from trainer.commands.options import OPTIONS
from trainer.commands.preset import preset_commands
from trainer.commands.report import report_command
from trainer.commands.upscale import upscale_command
from trainer.distributed.rank import RankInfo, ReportedByRank0
from trainer.messages import option_name, with_options

_COMMANDS = {
    command.name: command
    for command in (models_command, preset_commands, evaluate_command, upscale_command, export_command, report_command)
}
_COMPLETION = "_TRAINER_COMPLETE"  # set by the shell to request completions


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line. Exit codes: 0 success, 1 failure, 2 usage error, 129/130/143 stopped by a signal."""
    try:
        # Completion is registered for the console script, and click derives the variable's name from `prog_name`.
        name = "trainer" if _COMPLETION in os.environ else "python -m trainer"
        code = commands.main(args=args, prog_name=name, standalone_mode=False)
    except ReportedByRank0 as error:
        code = error.exit_code
    except (ReportedError, StoreError) as error:
        click.echo(f"Error: {with_options(explained(str(error), error))}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        code = 130
    except ModuleNotFoundError as error:
        if (hint := install_hint(error)) is None:
            raise
        click.echo(f"Error: {hint}", err=True)
        code = 2
    except Exception as error:
        if (reason := reason_of(error)) is None:  # a bug: show the traceback
            raise
        click.echo(f"Error: {explained(reason, error)}", err=True)
        code = 1
    sys.exit(code or 0)


class _Commands(Group):
    """Command group that explains an unknown command: a similar name, or --shards for an existing path."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not ctx.resilient_parsing:
            name = args[0]
            hint = did_you_mean(name, self.commands) or "to train, pass --shards FOLDER"
            hint = f"to train on it, pass --shards {name}" if _exists(name) else hint
            raise click.UsageError(f"unknown command {name}; {hint}", ctx)
        return super().resolve_command(ctx, args)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # not a valid file name
        return False


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="trainer")
@click.pass_context
def commands(context: click.Context, /, config_file: Path | None, resume: bool, **values: Any) -> int | None:
    """Train a super-resolution network on shards. The commands below evaluate, apply and compare trained networks.

    \b
    Examples:
      python -m trainer --shards shards/scale_4x --model standard
      python -m trainer --run standard-4x --resume
    """
    if context.invoked_subcommand is not None:
        given = [name for name in values if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if given:
            command = context.invoked_subcommand
            is_shared = given[0] in {param.name for param in _COMMANDS[command].params}
            advice = f"pass it after {command}" if is_shared else f"omit it: {command} has no such option"
            raise UsageError(f"{option_name(given[0])} before {command} is an option of training; {advice}")
        rank_info = RankInfo.from_environment(os.environ)
        if rank_info.world_size > 1:
            error = UsageError(f"{context.invoked_subcommand} runs in a single process; start it without torchrun")
            raise error if rank_info.is_rank0 else ReportedByRank0(error.exit_code)
        return None
    start_s = monotonic()  # before the import of PyTorch
    with loading():
        from trainer.commands.train import train_command
    return train_command(context, config_file, resume, values, start_s)


for _option in OPTIONS:
    commands = _option(commands)
for _command in _COMMANDS.values():
    commands.add_command(_command)
