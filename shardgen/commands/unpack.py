"""`shardgen unpack`."""

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
@click.option("-o", "--output", type=PATH, required=True, help="Folder for scale_4x/mountain/img1_hr.png, ...")
@click.option("--split", type=Choice(SPLITS), help="Only this split.  [default: both]")
def unpack_command(folder: Address, output: Path, split: str | None) -> None:
    """Write the samples as loose PNG files, for tools that want folders.

    Where samples would share a name, it also holds the photo's extension or the sample's key. A folder that holds other
    files is refused; the same command may be repeated.

    \b
    Example:
      shardgen unpack shards/scale_4x -o OST_LR
    """
    done = unpack(folder, output, split)
    say(f"{output}: {plural(done.num_samples, 'sample')}, {plural(done.num_files, 'file')}")
    if done.renamed:
        source, name = done.renamed[0]
        say(
            f"{plural(len(done.renamed), 'sample')} would share a name with others, so theirs holds the photo's "
            f"extension or the sample's key, e.g. {printable(name)} for {printable(source)}. "
            f"`shardgen inspect {folder} --sample KEY` shows a sample's source."
        )
