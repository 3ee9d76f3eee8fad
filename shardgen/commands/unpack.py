"""The `unpack` command."""

from pathlib import Path

import click

from shardgen.commands.types import option
from shardgen.inspection.unpack import unpack
from shardgen.inspection.unpack_layouts import LAYOUTS
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
@option(
    "--layout",
    type=Choice(LAYOUTS),
    default="old",
    help="old: img1_hr.png, img1_lr_4x.png, ... side by side. pairs: HR/ and LR/ with equal names. basicsr: pairs in "
    "flat folders, with meta_info.txt.",
)
def unpack_command(folder: Address, output: Path, split: str | None, layout: str) -> None:
    """Write the samples as loose PNG files, for tools that read folders of images.

    With --layout pairs and basicsr, the validation samples are in val/HR and val/LR.

    If two samples would get the same file name, the photo's extension or the sample's key is added. The command can
    be repeated, but scale_4x in the output folder must not contain files from elsewhere.

    \b
    Examples:
      python -m shardgen unpack shards/scale_4x -o OST_LR
      python -m shardgen unpack shards/scale_4x -o pairs --layout pairs
    """
    unpacked = unpack(folder, output, split, layout)
    say(f"{output}: {plural(unpacked.num_samples, 'sample')}, {plural(unpacked.num_files, 'file')}")
    if unpacked.renamed:
        source, name = unpacked.renamed[0]
        say(
            f"{plural(len(unpacked.renamed), 'file name')} would not be unique, so the photo's extension or the "
            f"sample's key was added, e.g. {printable(name)} for {printable(source)}. "
            f"`python -m shardgen inspect {folder} --sample KEY` shows a sample's source."
        )
