"""The `inspect` command."""

import json
from pathlib import Path

import click

from shardgen.commands.types import SampleKey
from shardgen.inspection.inspect import describe_folders, render_folder, render_sample, render_shard
from srshards.errors import UsageError
from srshards.format import Address
from srshards.terminal.help import Command
from srshards.terminal.params import ADDRESS


@click.command("inspect", cls=Command, short_help="Show the settings, statistics and samples of shards.")
@click.argument("folder", type=ADDRESS, default=Path("shards"))
@click.option("--shard", help="List the samples of this shard, e.g. train-000000.")
@click.option("--sample", "key", type=SampleKey(), help="Show one sample by its key, e.g. 000000000042.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect_command(folder: Address, shard: str | None, key: str | None, as_json: bool) -> None:
    """Show the settings, statistics and failures of shards, the samples of one shard, or one sample.

    FOLDER is shards by default.

    \b
    Examples:
      python -m shardgen inspect shards/scale_4x
      python -m shardgen inspect shards/scale_4x --shard val-000000
    """
    if shard and key:
        raise UsageError("pass either --shard or --sample, not both")
    described = describe_folders(folder, shard, key)
    if as_json:
        click.echo(json.dumps(described, ensure_ascii=False, indent=2))
        return
    render = render_shard if shard else render_sample if key else render_folder
    for name, description in described.items():
        render(name, description)
