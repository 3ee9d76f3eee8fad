"""The `unpack` command."""

from pathlib import Path

import click

from shardgen.inspection.unpack import unpack
from shardgen.planning.sources import printable
from srshards.format import SPLITS, Address
from srshards.terminal.help import Command
from srshards.terminal.params import ADDRESS, PATH
from srshards.terminal.text import Choice, plural, say


@click.command("unpack", cls=Command, short_help="Write samples as loose PNG files.")
@click.argument("folder", type=ADDRESS)
@click.option(
    "-o", "--output", type=PATH, required=True, help="Output folder, for files such as scale_4x/mountain/img1_hr.png."
)
@click.option("--split", type=Choice(SPLITS), help="Write only this split.  [default: both]")
def unpack_command(folder: Address, output: Path, split: str | None) -> None:
    """Write the samples as loose PNG files, for tools that read folders of images.

    If two samples would get the same file name, the photo's extension or the sample's key is added. The command can
    be repeated, but scale_4x in the output folder must not contain files from elsewhere.

    \b
    Example:
      python -m shardgen unpack shards/scale_4x -o OST_LR
    """
    unpacked = unpack(folder, output, split)
    say(f"{output}: {plural(unpacked.num_samples, 'sample')}, {plural(unpacked.num_files, 'file')}")
    if unpacked.renamed:
        source, name = unpacked.renamed[0]
        say(
            f"{plural(len(unpacked.renamed), 'file name')} would not be unique, so the photo's extension or the "
            f"sample's key was added, e.g. {printable(name)} for {printable(source)}. "
            f"`python -m shardgen inspect {folder} --sample KEY` shows a sample's source."
        )
