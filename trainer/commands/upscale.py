"""`python -m trainer upscale`: enlarge photos."""

from pathlib import Path
from typing import Literal

import click

from srshards.process.interrupt import loading
from srshards.terminal.help import Command
from srshards.terminal.params import PATH
from srshards.terminal.text import say
from trainer.commands.types import Tile

_REPLACED = ", replacing the file that was there"


@click.command("upscale", cls=Command, short_help="Enlarge photos.")
@click.argument("photos", type=PATH, nargs=-1, required=True)
@click.option("--weights", type=PATH, required=True, help="model.pth or best.pth of a run, or Real-ESRGAN's.")
@click.option(
    "-o", "--output", type=PATH, required=True, help="Folder for NAME_4x.png, or, for one photo, a file to write."
)
@click.option("--scale", type=click.IntRange(2, 8), help="For networks that restore (--input up).")
@click.option(
    "--tile",
    type=Tile(),
    default="auto",
    show_default=True,
    help="Px of the photo at a time, with overlap; auto takes what fits into memory, 0 the whole photo.",
)
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto takes a GPU if there is one."
)
@click.option("--compare", is_flag=True, help="Also write NAME_4x_compare.png: bicubic beside the network.")
def upscale_command(
    photos: tuple[Path, ...],
    weights: Path,
    output: Path,
    scale: int | None,
    tile: int | Literal["auto"] | None,
    device: str,
    compare: bool,
) -> None:
    """Enlarge PHOTOS: files, or folders of them. Transparency and grey are kept. Only results of this command are
    replaced.

    \b
    Examples:
      python -m trainer upscale --weights runs/lite-4x/best.pth photo.jpg -o enlarged
      python -m trainer upscale --weights runs/lite-4x/best.pth photos -o enlarged --compare
    """
    with loading():
        from trainer.inference.photo_files import list_photos
        from trainer.inference.upscale import upscale_photos
        from trainer.models.weights import load_network
        from trainer.training.device import choose_device, limit_threads
    limit_threads()
    network = load_network(weights)
    found = list_photos(photos, leave_out=output)
    results = upscale_photos(
        network, found, output, device=choose_device(device), tile=tile, scale=scale, compare=compare
    )
    for done in results:
        before, after = (f"{width}x{height}" for width, height in (done.size_before, done.size_after))
        say(f"{done.result}  {before} to {after} px in {done.seconds:.1f} s{_REPLACED if done.replaced else ''}")
        if done.compare:
            say(f"{done.compare}  bicubic | network{_REPLACED if done.compare_replaced else ''}")
