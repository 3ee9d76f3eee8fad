"""The command line. Each command only translates: words to a config, an outcome to words."""

import functools
import io
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from shardgen import __version__
from shardgen.cli_types import ByteSize, FailureLimit, Scale, SpaceSeparatedScales, failure_limit
from shardgen.config import FITS, METHODS, Config
from shardgen.cpus import available_cpus
from shardgen.engines.base import Engine
from shardgen.engines.local import PoolEngine, SerialEngine
from shardgen.errors import ShardgenError, UsageError
from shardgen.format import CODECS, SPLITS, FormatError, scale_folder
from shardgen.generate import STATS_NAME, Outcome, Preparation, generate, prepare
from shardgen.inspect import describe_folders, render_folder, render_sample, render_shard
from shardgen.preview import draw_preview
from shardgen.sources import printable
from shardgen.unpack import unpack
from shardgen.verify import verify

FOLDER = click.Path(path_type=Path)


class _Terminated(Exception):
    """SIGTERM arrived."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line. Exit codes: 0 done, 1 the work failed, 2 the command was wrong, 130/143 interrupted."""
    signal.signal(signal.SIGTERM, _raise_terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show must not end the run
            stream.reconfigure(errors="backslashreplace")
    try:
        commands.main(args=args, prog_name="shardgen", standalone_mode=False)
    except (ShardgenError, FormatError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(getattr(error, "exit_code", 1))
    except click.Abort as abort:
        if isinstance(abort.__cause__, KeyboardInterrupt):  # click turns one into the other
            _say_interrupted()
            sys.exit(130)
        click.echo("Stopped before anything was changed. (--auto asks nothing.)", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except _Terminated:
        _say_interrupted()
        sys.exit(143)
    sys.exit(0)


def _raise_terminated(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _say_interrupted() -> None:
    click.echo("\nInterrupted. Finished shards are kept; the same command goes on from here.", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="shardgen")
def commands() -> None:
    """Make super-resolution training data: photos become WebDataset shards of HR / LR / upsampled triplets."""


_CPUS = "[default: the CPUs that this process may use]"
_default = functools.partial(click.option, show_default=True)


@commands.command("generate", cls=SpaceSeparatedScales)
@_default("-i", "--input", type=FOLDER, default=Path("OST"), help="Folder of photos in class folders.")
@_default("-o", "--output", type=FOLDER, default=Path("shards"), help="Folder for scale_2x, scale_4x, ...")
@_default("-s", "--scales", type=Scale(), multiple=True, default=("4",), help="2 3 4, or 2,3,4; any of 2 to 8.")
@_default("--size", type=int, default=512, help="HR edge in px.")
@_default(
    "--fit",
    type=click.Choice(FITS),
    default="cover",
    help="What of a photo becomes HR: its centre square, native-resolution tiles, or all of it, distorted.",
)
@click.option("--tile-step", type=int, help="Px from tile to tile with --fit tile.  [default: --size, no overlap]")
@_default("--sample", type=float, default=1.0, help="Share of the photos: 0.01 to try, 0.1 to check, 1 for all.")
@_default("--method", type=click.Choice(METHODS), default="cubic", help="How LR is made and enlarged again.")
@_default(
    "--codec",
    type=click.Choice(CODECS),
    default="npy",
    help="npy trains fastest; png and webp, both lossless, take about a half and a third of the space.",
)
@_default("--shard-bytes", type=ByteSize(), default="256MB", help="Shards come out between half of this and about it.")
@_default("--val-fraction", type=float, default=0.02, help="Share of the photos for validation.")
@_default("--seed", type=int, default=0, help="Draws the order and the split of the photos.")
@click.option("--workers", type=click.IntRange(min=0), help=f"Worker processes; 0 works in this one.  {_CPUS}")
@click.option(
    "--max-failures",
    type=FailureLimit(),
    help="Photos that may fail before the exit code is 1: 50, or 2%.  [default: 1%, at least 10]",
)
@click.option("--auto", is_flag=True, help="Ask nothing.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
def generate_command(
    workers: int | None,
    max_failures: str | None,
    auto: bool,
    dry_run: bool,
    scales: tuple[tuple[int, ...], ...],
    **settings: Any,
) -> None:
    """Make shards from photos; what is there already is kept.

    Example: shardgen generate -i OST -o shards -s 2 3 4 --sample 0.1 --auto
    """
    config = Config(scales=tuple(scale for group in scales for scale in group), **settings)
    if dry_run:
        click.echo(_preparation_text(prepare(config)))
        return
    num_workers = available_cpus() if workers is None else workers
    engine: Engine = PoolEngine(num_workers) if num_workers else SerialEngine()
    outcome = generate(config, engine, functools.partial(_confirm, auto=auto))
    click.echo(_outcome_text(outcome, config.output, config.size))
    _exit_by_failures(outcome, max_failures)


def _confirm(preparation: Preparation, auto: bool) -> None:
    if not preparation.tasks:
        return
    click.echo(_preparation_text(preparation))
    if not auto and not click.confirm("Go on?", default=True):
        raise click.Abort


def _preparation_text(p: Preparation) -> str:
    listing = p.listing
    others = f", {listing.num_ignored:,} other files ignored" if listing.num_ignored else ""
    links = listing.num_links_passed_over
    loops = f", {links:,} links to folders listed already not followed" if links else ""
    lines = [
        f"Photos  {p.num_photos:,} of {len(listing.photos):,} in {p.config.input}"
        f" ({p.photos_of('train'):,} train, {p.photos_of('val'):,} val){others}{loops}",
    ]
    for inventory in p.inventories:
        scale, hr = inventory.scale, p.config.hr_size(inventory.scale)
        cropped = f" ({p.config.size} cropped to a multiple of {scale})" if hr != p.config.size else ""
        about = "about " if p.config.fit == "tile" else ""
        counts = [f"{len(inventory.to_make)} shards to make ({about}{p.samples_to_make(scale):,} samples)"]
        counts += [f"{len(inventory.kept)} kept"] if inventory.kept else []
        counts += [f"{len(inventory.stale)} outdated to remove"] if inventory.stale else []
        settings = f"HR {hr} px{cropped}, LR {hr // scale} px, {p.config.method}, {p.config.codec}"
        lines.append(f"{scale_folder(scale)}  {settings}: {', '.join(counts)}")
    lines.append(f"Disk    {_human(p.bytes_to_make)} needed, {_human(p.free_bytes)} free")
    return "\n".join(lines)


def _outcome_text(outcome: Outcome, output: Path, size: int) -> str:
    if not (outcome.made or outcome.removed):
        return f"All {outcome.kept} shards are up to date."
    lines = []
    for scale, manifest in outcome.manifests.items():
        totals = manifest["totals"]
        extras = {
            f"enlarged (smaller than {size} px)": totals["enlarged"],
            "skipped (smaller than a tile)": totals["skipped"],
            "failed": totals["failures"],
        }
        lines.append(
            f"{output / scale_folder(scale)}: {totals['samples']:,} samples in {totals['shards']} shards, "
            f"{_human(totals['bytes'])}" + "".join(f", {count:,} {what}" for what, count in extras.items() if count)
        )
    lines.append(f"Shards: {outcome.made} made, {outcome.kept} kept, {outcome.removed} removed.")
    if outcome.work.photos:
        rate = outcome.work.photos / max(outcome.work.wall_s, 1e-9)
        took = f"{outcome.work.photos:,} photos in {outcome.work.wall_s:.1f} s ({rate:.0f} photos/s)"
        lines.append(f"{took}; see {output / STATS_NAME}.")
    return "\n".join(lines)


def _human(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _exit_by_failures(outcome: Outcome, max_failures: str | None) -> None:
    failures = outcome.failures
    num_photos = max(manifest["totals"]["photos"] for manifest in outcome.manifests.values())
    limit = failure_limit(max_failures, num_photos)
    if failures:
        example = f"{printable(failures[0]['path'])}: {failures[0]['reason']}"
        some = f"{len(failures):,} of {num_photos:,} photos failed (limit {limit:,})"
        click.echo(f"{some}, e.g. {example}. All are named in the manifest.", err=True)
    if not outcome.num_samples:
        raise ShardgenError("no photo gave a sample. The manifest says why for each.")
    if len(failures) > limit:
        raise ShardgenError(
            f"{len(failures)} photos failed, more than the {limit} that --max-failures allows. The shards are whole "
            "and usable without them; mend or remove the photos, or allow more."
        )


@commands.command("inspect")
@click.argument("folder", type=FOLDER, default=Path("shards"))
@click.option("--shard", help="List the samples of this shard, e.g. train-000000.")
@click.option("--sample", "key", help="Show one sample by its key, e.g. 000000000042.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def inspect_command(folder: Path, shard: str | None, key: str | None, as_json: bool) -> None:
    """Show what a folder of shards holds.

    Example: shardgen inspect shards/scale_4x --shard val-000000
    """
    if shard and key:
        raise UsageError("--shard and --sample do not go together: name one of them")
    described = describe_folders(folder, shard, key)
    if as_json:
        click.echo(json.dumps(described, ensure_ascii=False, indent=2))
        return
    render = render_shard if shard else render_sample if key else render_folder
    for name, description in described.items():
        render(name, description)


@commands.command("verify")
@click.argument("folder", type=FOLDER, default=Path("shards"))
@click.option("--fix", is_flag=True, help="Remove broken shards, so that the next generate makes exactly those again.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Threads that read.  [default: the CPUs that this process may use]"
)
def verify_command(folder: Path, fix: bool, workers: int | None) -> None:
    """Read everything again and name every shard that is not what it should be.

    Example: shardgen verify shards --fix
    """
    report = verify(folder, fix, workers or available_cpus())
    for problem in report.problems:
        click.echo(f"{problem.path}: {problem.reason}", err=True)
    if not report.problems:
        size = f"{report.num_samples:,} samples, {_human(report.num_bytes)}"
        click.echo(f"{report.num_shards} shards, {size}: all whole.")
        return
    advice = "Removed; run generate again to make them anew." if fix else "--fix removes what is broken."
    raise ShardgenError(f"{len(report.problems)} of {report.num_shards} shards and manifests are broken. {advice}")


@commands.command("preview")
@click.argument("folder", type=FOLDER)
@_default("-o", "--output", type=FOLDER, default=Path("preview.png"), help="The picture to write.")
@_default("--count", type=click.IntRange(1, 64), default=6, help="Rows.")
def preview_command(folder: Path, output: Path, count: int) -> None:
    """Draw some triplets: HR, LR, the upsampled image, and how it differs from HR.

    Example: shardgen preview shards/scale_4x -o preview.png
    """
    rows = draw_preview(folder, output, count)
    click.echo(f"{output}: {rows} samples of {folder}")


@commands.command("unpack")
@click.argument("folder", type=FOLDER)
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder for scale_4x/mountain/img1_hr.png, ...")
@click.option("--split", type=click.Choice(SPLITS), help="Only this split.  [default: both]")
def unpack_command(folder: Path, output: Path, split: str | None) -> None:
    """Write the samples as loose PNG files, for tools that want folders.

    Example: shardgen unpack shards/scale_4x -o OST_LR
    """
    count = unpack(folder, output, split)
    click.echo(f"{output}: {count:,} samples, {3 * count:,} files")
