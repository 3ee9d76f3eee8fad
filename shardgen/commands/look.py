"""`shardgen preview`, `shardgen unpack` and `shardgen rebuild`: images to look at."""

from pathlib import Path

import click
from click.core import ParameterSource
from PIL import Image

from shardgen.commands.types import complete_recipe, option
from shardgen.degradation.recipe_file import load_recipe
from shardgen.inspection.preview import draw_preview
from shardgen.inspection.rebuild import rebuild
from shardgen.inspection.recipe_preview import draw_recipe_preview
from shardgen.inspection.unpack import unpack
from shardgen.planning.sources import printable
from srshards.errors import ReportedError, UsageError
from srshards.format import MAX_SCALE, MIN_SCALE, SPLITS, Address
from srshards.imaging.contact_sheet import save_png
from srshards.imaging.provenance import why_not
from srshards.storage.store import AddressError, file_size, is_folder, local_path
from srshards.terminal.help import Command
from srshards.terminal.params import ADDRESS, PATH, FileToWrite
from srshards.terminal.text import Choice, plural, say


@click.command("preview", cls=Command, short_help="Draw samples of shards, or a photo under draws of a recipe.")
@click.argument("source", type=ADDRESS, metavar="FOLDER|PHOTO")
@option(
    "-o",
    "--output",
    type=FileToWrite("shardgen preview", "preview.png"),
    default=Path("preview.png"),
    help="The picture to write; it replaces only a picture of this command.",
)
@click.option("--count", type=click.IntRange(1, 64), help="Rows; with --recipe, draws.  [default: 6; 8]")
@click.option(
    "--recipe",
    shell_complete=complete_recipe,
    help="Show a photo under draws of this recipe: a built-in name, or a YAML file.",
)
@option("-s", "--scale", type=click.IntRange(MIN_SCALE, MAX_SCALE), default=4, help="With --recipe: HR px per LR px.")
def preview_command(source: Address, output: Path, count: int | None, recipe: str | None, scale: int) -> None:
    """Draw some samples of a folder of shards; or one photo under many draws of a recipe, with their parameters.

    \b
    Examples:
      shardgen preview shards/scale_4x -o preview.png
      shardgen preview --recipe realesrgan photo.jpg
    """
    if recipe is None:
        if file_size(source) is not None and not is_folder(source):
            raise UsageError(f"{source} is a file: to see a photo under the draws of a recipe, add --recipe realesrgan")
        if click.get_current_context().get_parameter_source("scale") is ParameterSource.COMMANDLINE:
            raise UsageError(f"--scale goes with --recipe: the shards in {source} have theirs")
        rows = draw_preview(source, output, count or 6)
        say(f"{output}: {plural(rows, 'sample')} of {source}")
        return
    loaded = load_recipe(recipe)
    try:
        photo = local_path(source)
    except AddressError:
        raise UsageError(f"{source} lies in a store: --recipe shows a photo of this machine") from None
    if photo.is_dir():
        raise UsageError(f"{source} is a folder: name a photo to show under the draws of --recipe {recipe}")
    if output.exists() and photo.exists() and output.samefile(photo):
        raise UsageError(f"{output} is the photo to show: name another --output")
    draw_recipe_preview(photo, loaded, scale, count or 8, output)
    say(f"{output}: {source} under {count or 8} draws of {loaded.name}, {scale}x")


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


@click.command("rebuild", cls=Command, short_help="Make a sample's LR again from its record, and compare.")
@click.argument("key")
@click.argument("folder", type=ADDRESS, default=Path("shards"))
@click.option("-o", "--output", type=PATH, help="Write the LR images made again into this folder, as PNG.")
def rebuild_command(key: str, folder: Address, output: Path | None) -> None:
    """Make the LR images of a sample again, from its HR and the record of what was drawn, and compare.

    \b
    Example:
      shardgen rebuild 000000300042 shards/scale_4x -o again
    """
    images = list(rebuild(folder, key))
    paths = [output / f"{key}_{image.name}_{image.scale}x.png" for image in images] if output else []
    for path in paths:
        if refusal := why_not(path, "shardgen rebuild"):
            raise UsageError(refusal)
    different = []
    for image in images:
        height, width = image.stored.shape[:2]
        found = f"{image.num_different:,} of {height * width:,} px differ" if image.num_different else "identical"
        click.echo(f"{image.folder}: {key}.{image.name}, {width} x {height} px: {found}")
        different += [image] if image.num_different else []
    for image, path in zip(images, paths, strict=False):
        save_png(Image.fromarray(image.made), path, "shardgen rebuild")
    if different:
        reasons = "; ".join(sorted({image.explanation for image in different}))
        raise ReportedError(f"{plural(len(different), 'LR image')} came out otherwise than they are stored: {reasons}")
