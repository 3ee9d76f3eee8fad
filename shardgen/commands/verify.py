"""The `verify` command."""

from pathlib import Path

import click

from shardgen.inspection.verify import verify
from shardgen.planning.sources import printable
from srshards.errors import ReportedError
from srshards.format import Address
from srshards.process.resources import available_cpus
from srshards.shards.advice import SAME_COMMAND
from srshards.terminal.help import Command
from srshards.terminal.params import ADDRESS
from srshards.terminal.sizes import format_bytes
from srshards.terminal.text import plural, say


@click.command("verify", cls=Command, short_help="Check every byte and list broken shards.")
@click.argument("folder", type=ADDRESS, default=Path("shards"))
@click.option("--fix", is_flag=True, help="Remove broken shards; running generate or pack again rebuilds only these.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Reader threads.  [default: the CPUs that this process may use]"
)
def verify_command(folder: Address, fix: bool, workers: int | None) -> None:
    """Read every byte of the shards and list each shard or manifest that is broken.

    FOLDER is shards by default.

    \b
    Example:
      python -m shardgen verify shards --fix
    """
    result = verify(folder, fix, workers or available_cpus())
    for problem in result.problems:
        click.echo(printable(f"{problem.path}: {problem.reason}"), err=True)
    if not result.problems:
        size = f"{plural(result.num_samples, 'sample')}, {format_bytes(result.num_bytes)}"
        say(f"{plural(result.num_shards, 'shard')}, {size}: all intact.")
        return
    broken, num_checked = len(result.problems), result.num_shards + result.num_manifests
    are, were, them = ("is", "was", "it") if broken == 1 else ("are", "were", "them")
    removed = f" and {were} removed; run {SAME_COMMAND} again to rebuild {them}"
    advice = removed if fix else f"; pass --fix to remove {them}"
    raise ReportedError(f"{broken:,} of {num_checked:,} shards and manifests {are} broken{advice}")
