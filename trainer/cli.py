"""The command line: which commands there are, and how each of them may end."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
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
from trainer.commands.options import OPTIONS
from trainer.commands.report import report_command
from trainer.commands.upscale import upscale_command
from trainer.distributed.rank import RankInfo, ReportedByRank0
from trainer.messages import with_options

_COMPLETION = "_TRAINER_COMPLETE"  # the shell asks in this variable


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line. Exit codes: 0 done, 1 the work failed, 2 the command was wrong, 129/130/143 interrupted."""
    try:
        # Shells complete the words of the console script, and click takes the variable's name from its name.
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
        if (reason := reason_of(error)) is None:  # a fault of the program
            raise
        click.echo(f"Error: {explained(reason, error)}", err=True)
        code = 1
    sys.exit(code or 0)


class _Commands(Group):
    """Says what to do with a word that is no command: which one is near, or that a folder is to be trained on."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not ctx.resilient_parsing:
            word = args[0]
            hint = did_you_mean(word, self.commands) or "training needs no word: --shards FOLDER"
            hint = f"to train on it: --shards {word}" if _is_there(word) else hint
            raise click.UsageError(f"{word} is no command; {hint}", ctx)
        return super().resolve_command(ctx, args)


def _is_there(word: str) -> bool:
    try:
        return Path(word).exists()
    except (OSError, ValueError):  # no name that a file could have
        return False


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="trainer")
@click.pass_context
def commands(context: click.Context, /, config_file: Path | None, resume: bool, **values: Any) -> int | None:
    """Train a super-resolution network on shards, or use one by a command below.

    \b
    Examples:
      python -m trainer --shards shards/scale_4x --model standard
      python -m trainer --run standard-4x --resume
    """
    if context.invoked_subcommand is not None:
        given = [name for name in values if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if given:
            option = "--" + given[0].replace("_", "-")
            raise UsageError(
                f"{option} stands before {context.invoked_subcommand}, where options are those of training; "
                f"put it after {context.invoked_subcommand}"
            )
        rank_info = RankInfo.from_environment(os.environ)
        if rank_info.world_size > 1:
            refusal = UsageError(f"{context.invoked_subcommand} is work for one process; start it without torchrun")
            raise refusal if rank_info.is_rank0 else ReportedByRank0(refusal.exit_code)
        return None
    with loading():
        from trainer.commands.train import train_command
    return train_command(context, config_file, resume, values)


for _option in OPTIONS:
    commands = _option(commands)
for _command in (evaluate_command, upscale_command, export_command, report_command):
    commands.add_command(_command)
