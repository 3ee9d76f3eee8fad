"""The `generate` command."""

import functools
from pathlib import Path
from typing import Any

import click

from shardgen.commands.run import RunOptions, execute, run_options
from shardgen.commands.types import Scale, SpaceSeparatedScales, complete_recipe, no_up_option, option
from shardgen.degradation.recipe_file import BUILT_IN, load_recipe
from shardgen.generate.inputs import list_inputs
from shardgen.planning.config import FITS, METHODS, Config
from srshards.terminal.params import ADDRESS, OneFolder
from srshards.terminal.text import Choice


@click.command(
    "generate", cls=SpaceSeparatedScales, short_help="Generate shards from photos; finished shards are kept."
)
@option(
    "-i",
    "--input",
    cls=OneFolder,
    type=ADDRESS,
    default=Path("OST"),
    help="Folder of photos in class folders; may be s3://...",
)
@option("-o", "--output", type=ADDRESS, default=Path("shards"), help="Folder for scale_2x, ...; may be s3://...")
@click.option(
    "--val", type=ADDRESS, help="Folder of validation photos, instead of a fraction of the photos of --input."
)
@option("-s", "--scales", type=Scale(), multiple=True, default=("4",), help="One or more of 2 to 8: 2 3 4, or 2,3,4.")
@option("--size", type=int, default=512, help="HR edge in px.")
@option(
    "--fit",
    type=Choice(FITS),
    default="cover",
    help="HR of a photo: its centre square, tiles at native resolution, or the complete photo stretched to a square.",
)
@click.option(
    "--tile-step", type=int, help="Stride of the tiles in px, with --fit tile.  [default: --size, no overlap]"
)
@option("--method", type=Choice(METHODS), default="cubic", help="Resampling method for LR and its upsampled copy.")
@click.option(
    "--degradation",
    shell_complete=complete_recipe,
    help=f"Degrade LR by a recipe: {', '.join(BUILT_IN)} or a YAML file; see `python -m shardgen recipe`.",
)
@option("--variants", type=int, default=1, help="LR images per training sample, each drawn from the recipe.")
@no_up_option
@option("--sharpen-hr", is_flag=True, help="Sharpen HR before LR is derived from it (unsharp mask, as Real-ESRGAN).")
@click.option(
    "--as-photos", is_flag=True, help="Use all images as photos, even if their names are those of HR/LR pairs."
)
@run_options("photo")
def generate_command(
    run: RunOptions,
    exclude: Path | None,
    as_photos: bool,
    scales: tuple[tuple[int, ...], ...],
    degradation: str | None,
    no_up: bool,
    **settings: Any,
) -> None:
    """Generate shards from photos. Finished shards are kept, so an interrupted run can be continued.

    \b
    Examples:
      python -m shardgen generate -i OST -o shards -s 2 3 4 --sample 0.1 --auto
      python -m shardgen generate -i OST -o shards -s 4 --degradation realesrgan --variants 8
    """
    config = Config(
        scales=tuple(scale for group in scales for scale in group),
        degradation=load_recipe(degradation) if degradation is not None else None,
        up=not no_up,
        **settings,
    )
    execute(functools.partial(list_inputs, config, exclude, as_photos), run)
