"""The `rebuild` command."""

from pathlib import Path

import click
from PIL import Image

from shardgen.commands.types import SampleKey
from shardgen.inspection.rebuild import rebuild
from srshards.errors import ReportedError, UsageError
from srshards.format import Address
from srshards.imaging.contact_sheet import save_png
from srshards.imaging.provenance import overwrite_refusal
from srshards.terminal.help import Command
from srshards.terminal.params import ADDRESS, PATH
from srshards.terminal.text import plural


@click.command("rebuild", cls=Command, short_help="Recompute a sample's LR from its record and compare.")
@click.argument("key", type=SampleKey())
@click.argument("folder", type=ADDRESS, default=Path("shards"))
@click.option("-o", "--output", type=PATH, help="Write the recomputed LR images to this folder, as PNG.")
def rebuild_command(key: str, folder: Address, output: Path | None) -> None:
    """Recompute a sample's LR images from its HR and its recorded degradation, and compare them with the stored ones.

    FOLDER is shards by default.

    \b
    Example:
      python -m shardgen rebuild 000000300042 shards/scale_4x -o rebuilt
    """
    if output is not None and output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; pass a folder as --output")
    images = list(rebuild(folder, key))
    paths = [output / f"{key}_{image.name}_{image.scale}x.png" for image in images] if output else []
    for path in paths:
        if refusal := overwrite_refusal(path, "shardgen rebuild"):
            raise UsageError(refusal)
    different = []
    for image in images:
        height, width = image.stored.shape[:2]
        found = f"{image.num_different:,} of {height * width:,} px different" if image.num_different else "identical"
        click.echo(f"{image.folder}: {key}.{image.name}, {width} x {height} px: {found}")
        different += [image] if image.num_different else []
    for image, path in zip(images, paths, strict=False):
        save_png(Image.fromarray(image.recomputed), path, "shardgen rebuild")
    if different:
        reasons = "; ".join(sorted({image.explanation for image in different}))
        count = f"{len(different)} of {plural(len(images), 'recomputed LR image')}"
        verb = "differs" if len(different) == 1 else "differ"
        raise ReportedError(f"{count} {verb} from the stored ones: {reasons}")
