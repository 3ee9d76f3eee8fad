"""`shardgen verify`."""

from pathlib import Path

import click

from shardgen.inspection.verify import verify
from srshards.errors import ReportedError
from srshards.format import Address
from srshards.process.resources import available_cpus
from srshards.terminal.help import Command
from srshards.terminal.params import ADDRESS
from srshards.terminal.sizes import format_bytes
from srshards.terminal.text import plural, say


@click.command("verify", cls=Command, short_help="Read everything again and name what is broken.")
@click.argument("folder", type=ADDRESS, default=Path("shards"))
@click.option("--fix", is_flag=True, help="Remove broken shards, so that the next generate makes exactly those again.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Threads that read.  [default: the CPUs that this process may use]"
)
def verify_command(folder: Address, fix: bool, workers: int | None) -> None:
    """Read everything again and name every shard that is not what it should be.

    \b
    Example:
      shardgen verify shards --fix
    """
    found = verify(folder, fix, workers or available_cpus())
    for problem in found.problems:
        click.echo(f"{problem.path}: {problem.reason}", err=True)
    if not found.problems:
        size = f"{plural(found.num_samples, 'sample')}, {format_bytes(found.num_bytes)}"
        say(f"{plural(found.num_shards, 'shard')}, {size}: all whole.")
        return
    advice = "Removed; run generate again to make them anew." if fix else "--fix removes what is broken."
    num_checked = found.num_shards + found.num_manifests
    raise ReportedError(f"{len(found.problems)} of {num_checked} shards and manifests are broken. {advice}")
