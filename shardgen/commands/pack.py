"""The `pack` command."""

import functools
from pathlib import Path
from typing import Any

import click

from shardgen.commands.run import RunOptions, execute, run_options
from shardgen.commands.types import no_up_option, option
from shardgen.generate.pair_inputs import PackRequest, PairFolders, list_pairs
from shardgen.planning.config import METHODS
from srshards.errors import UsageError
from srshards.format import Address
from srshards.terminal.help import Command
from srshards.terminal.params import ADDRESS
from srshards.terminal.text import Choice


@click.command("pack", cls=Command, short_help="Pack existing HR/LR pairs into shards; finished shards are kept.")
@click.option("--hr", type=ADDRESS, required=True, help="Folder of HR images; may be s3://..., or a BasicSR LMDB.")
@click.option("--lr", type=ADDRESS, multiple=True, help="Folder of their LR images; repeat it for more scales.")
@click.option("--up", type=ADDRESS, multiple=True, help="Folder of the upsampled LR images.  [default: computed]")
@option("-o", "--output", type=ADDRESS, default=Path("shards"), help="Folder for scale_2x, ...; may be s3://...")
@click.option(
    "--val",
    type=ADDRESS,
    help="Folder of validation pairs, instead of a fraction of the pairs; of their HR images with --val-lr.",
)
@click.option(
    "--val-lr", type=ADDRESS, multiple=True, help="Folder of the LR images of --val; repeat it for more scales."
)
@click.option("--val-up", type=ADDRESS, multiple=True, help="Folder of the upsampled LR images of --val.")
@click.option("--pattern", help="How the names of LR images follow from those of HR; see docs/how-to/pairs.md.")
@click.option("--meta-info", type=ADDRESS, help="Text file of BasicSR that lists the pairs to use.")
@click.option("--skip-unpaired", is_flag=True, help="Leave out images without a counterpart instead of refusing them.")
@click.option(
    "--size",
    type=int,
    help="Edge of the HR tiles in px.  [default: that of HR if all are equal squares, otherwise 512 or less]",
)
@click.option("--tile-step", type=int, help="Stride of the tiles in px of HR.  [default: --size, no overlap]")
@option("--method", type=Choice(METHODS), default="cubic", help="Resampling method for upsampled LR that is not given.")
@no_up_option
@click.option(
    "--accept-misaligned", is_flag=True, help="Use pairs that are shifted, or differ in brightness or colour."
)
@run_options("pair")
def pack_command(
    run: RunOptions,
    exclude: Path | None,
    hr: Address,
    lr: tuple[Address, ...],
    up: tuple[Address, ...],
    output: Address,
    val: "Address | None",
    val_lr: tuple[Address, ...],
    val_up: tuple[Address, ...],
    pattern: str | None,
    meta_info: "Address | None",
    skip_unpaired: bool,
    size: int | None,
    no_up: bool,
    accept_misaligned: bool,
    **settings: Any,
) -> None:
    """Pack existing HR/LR pairs into shards. LR images are stored as they are, cut into tiles, never resized.

    \b
    Examples:
      python -m shardgen pack --hr OST --lr OST_LR -o shards
      python -m shardgen pack --hr HR --lr LR/X2 --lr LR/X4 -o shards --val Set5
    """
    if no_up and (up or val_up):
        raise UsageError("--no-up stores no upsampled images, so --up and --val-up have no effect; pass one of them")
    if val is None and (val_lr or val_up):
        raise UsageError("--val-lr and --val-up require --val, the folder of the validation HR images")
    request = PackRequest(
        output=output,
        train=PairFolders(hr, lr, up),
        val=None if val is None else PairFolders(val, val_lr, val_up),
        size=size,
        up=not no_up,
        pattern=pattern,
        meta_info=meta_info,
        skip_unpaired=skip_unpaired,
        accept_misaligned=accept_misaligned,
        settings=settings,
    )
    execute(functools.partial(list_pairs, request, exclude), run)
