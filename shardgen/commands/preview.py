"""The `preview` command."""

from pathlib import Path

import click
from click.core import ParameterSource

from shardgen.commands.types import complete_recipe, option
from shardgen.degradation.recipe_file import load_recipe
from shardgen.inspection.preview import draw_preview
from shardgen.inspection.recipe_preview import draw_recipe_preview
from srshards.errors import UsageError
from srshards.format import MAX_SCALE, MIN_SCALE, Address
from srshards.storage.store import AddressError, file_size, is_folder, local_path
from srshards.terminal.help import Command
from srshards.terminal.params import ADDRESS, FileToWrite
from srshards.terminal.text import plural, say


@click.command("preview", cls=Command, short_help="Draw samples of shards, or a photo degraded by a recipe.")
@click.argument("source", type=ADDRESS, metavar="FOLDER|PHOTO")
@option(
    "-o",
    "--output",
    type=FileToWrite("shardgen preview", "preview.png"),
    default=Path("preview.png"),
    help="PNG file to write. An existing file is replaced only if this command wrote it.",
)
@click.option(
    "--count",
    type=click.IntRange(1, 64),
    help="Number of samples or, with --recipe, of LR images.  [default: 6; 8 with --recipe]",
)
@click.option(
    "--recipe",
    shell_complete=complete_recipe,
    help="Degrade a photo by this recipe: a built-in name or a YAML file.",
)
@option("-s", "--scale", type=click.IntRange(MIN_SCALE, MAX_SCALE), default=4, help="Scale, with --recipe.")
def preview_command(source: Address, output: Path, count: int | None, recipe: str | None, scale: int) -> None:
    """Draw samples of shards, or a photo degraded several times by a recipe, with the parameters of each degradation.

    \b
    Examples:
      python -m shardgen preview shards/scale_4x -o preview.png
      python -m shardgen preview --recipe realesrgan photo.jpg
    """
    if recipe is None:
        if file_size(source) is not None and not is_folder(source):
            raise UsageError(f"{source} is a file; to see a photo degraded by a recipe, pass --recipe realesrgan")
        if click.get_current_context().get_parameter_source("scale") is ParameterSource.COMMANDLINE:
            raise UsageError(f"--scale requires --recipe; omit it: the shards in {source} have a fixed scale")
        rows = draw_preview(source, output, count or 6)
        say(f"{output}: {plural(rows, 'sample')} of {source}")
        return
    loaded = load_recipe(recipe)
    try:
        photo = local_path(source)
    except AddressError:
        raise UsageError(f"{source} is in an object store; pass a local photo with --recipe") from None
    if photo.is_dir():
        raise UsageError(f"{source} is a folder; pass a photo with --recipe")
    if not photo.exists():
        raise UsageError(f"no such file: {photo}; pass a photo with --recipe")
    if output.exists() and output.samefile(photo):
        raise UsageError(f"{output} is the photo itself; pass another --output")
    draw_recipe_preview(photo, loaded, scale, count or 8, output)
    say(f"{output}: {source} degraded {plural(count or 8, 'time')} by {loaded.name}, {scale}x")
