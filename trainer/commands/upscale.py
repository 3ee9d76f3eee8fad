"""`python -m trainer upscale`: upscale photos."""

from pathlib import Path
from typing import Literal

import click

from srshards.process.allocator import keep_freed_memory
from srshards.process.interrupt import loading
from srshards.terminal.help import Command
from srshards.terminal.params import PATH
from trainer.commands.types import Tile


@click.command("upscale", cls=Command, short_help="Upscale photos.")
@click.argument("photos", type=PATH, nargs=-1, required=True)
@click.option(
    "--weights",
    type=PATH,
    required=True,
    help="model.pth or best.pth of a run, or other weights of a network from RGB to RGB.",
)
@click.option(
    "-o", "--output", type=PATH, required=True, help="Folder for NAME_4x.png, or the output file of a single photo."
)
@click.option("--scale", type=click.IntRange(2, 8), help="Scale, for networks trained with --input up.")
@click.option(
    "--tile",
    type=Tile(),
    default="auto",
    show_default=True,
    help="Largest tile edge in px of the photo, with overlap; auto: by speed and free memory; 0: no tiling.",
)
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda or cuda:1; auto uses a GPU if there is one."
)
@click.option("--compare", is_flag=True, help="Also write NAME_4x_compare.png: bicubic next to the network.")
def upscale_command(
    photos: tuple[Path, ...],
    weights: Path,
    output: Path,
    scale: int | None,
    tile: int | Literal["auto"] | None,
    device: str,
    compare: bool,
) -> None:
    """Upscale PHOTOS: files or folders. Transparency and grayscale are preserved. An existing file is replaced only
    if this command wrote it.

    \b
    Examples:
      python -m trainer upscale --weights runs/lite-4x/best.pth photo.jpg -o upscaled
      python -m trainer upscale --weights runs/lite-4x/best.pth photos -o upscaled --compare
    """
    with loading():
        from srshards.imaging.photo import stored_pixels
        from trainer.commands.upscale_display import UpscaleDisplay
        from trainer.inference.photo_files import list_photos
        from trainer.inference.upscale import upscale_photos
        from trainer.models.weights import load_network
        from trainer.training.device import choose_device, limit_threads
    limit_threads()
    network = load_network(weights)
    found = list_photos(photos, leave_out=output)
    chosen = choose_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    with UpscaleDisplay([stored_pixels(photo) for photo in found]) as display:
        upscale_photos(network, found, output, device=chosen, tile=tile, scale=scale, compare=compare, listener=display)
