"""The `generate` command."""

import functools
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from shardgen.commands.types import (
    FailureLimit,
    Scale,
    SpaceSeparatedScales,
    complete_recipe,
    failure_limit,
    option,
)
from shardgen.degradation.differences import recipe_differences
from shardgen.degradation.recipe_file import BUILT_IN, load_recipe
from shardgen.engines.base import Engine
from shardgen.engines.local import PoolEngine, SerialEngine
from shardgen.generate.run import STATS_NAME, Outcome, Preparation, generate, prepare
from shardgen.planning.config import FITS, METHODS, Config
from shardgen.planning.exclusion import Exclusion
from shardgen.planning.sources import printable
from srshards.errors import ReportedError, UsageError
from srshards.extras import install_command
from srshards.format import CODECS, Address, scale_folder
from srshards.process.resources import available_cpus
from srshards.terminal.params import ADDRESS, BYTE_SIZE, PATH
from srshards.terminal.sizes import format_bytes
from srshards.terminal.streams import nonessential_output
from srshards.terminal.text import Choice, fitted, plural, say

_CPUS = "[default: the CPUs that this process may use, or all of the cluster]"
_RAY = "[default: RAY_ADDRESS, else the cluster last started on this machine, else a new one for this run]"


@click.command(
    "generate", cls=SpaceSeparatedScales, short_help="Generate shards from photos; finished shards are kept."
)
@option("-i", "--input", type=ADDRESS, default=Path("OST"), help="Folder of photos in class folders; may be s3://...")
@option("-o", "--output", type=ADDRESS, default=Path("shards"), help="Folder for scale_2x, ...; may be s3://...")
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
@option("--sample", type=float, default=1.0, help="Fraction of the photos to use, e.g. 0.01 for a quick trial.")
@option("--method", type=Choice(METHODS), default="cubic", help="Resampling method for LR and its upsampled copy.")
@click.option(
    "--degradation",
    shell_complete=complete_recipe,
    help=f"Degrade LR by a recipe: {', '.join(BUILT_IN)} or a YAML file; see `python -m shardgen recipe`.",
)
@option("--variants", type=int, default=1, help="LR images per training sample, each drawn from the recipe.")
@option("--no-up", is_flag=True, help="Omit the upsampled LR; saves a third to a half of the space.")
@option("--sharpen-hr", is_flag=True, help="Sharpen HR before LR is derived from it (unsharp mask, as Real-ESRGAN).")
@option(
    "--codec",
    type=Choice(CODECS),
    default="npy",
    help="Image format: npy trains fastest; png and webp, both lossless, take about a half and a third of the space.",
)
@option(
    "--shard-bytes",
    type=BYTE_SIZE,
    default="256MB",
    help="Approximate maximum size of a shard; most have half or more.",
)
@option("--val-fraction", type=float, default=0.02, help="Fraction of the photos for validation.")
@option("--seed", type=int, default=0, help="Seed for the order and split of the photos, and for recipes.")
@option("--engine", type=Choice(("local", "ray")), default="local", help="Local worker processes, or a Ray cluster.")
@click.option("--ray-address", help=f"Ray cluster: HOST:PORT, auto or local, with --engine ray.  {_RAY}")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help=f"Worker processes; 0 builds shards in this process. With --engine ray: shards at a time, at most.  {_CPUS}",
)
@click.option(
    "--max-failures",
    type=FailureLimit(),
    help="Exit with code 1 if more photos than this fail, e.g. 50 or 2%.  [default: 1%, at least 10]",
)
@click.option("--exclude", type=PATH, help="Leave out the photos listed in this file, as exported by `report`.")
@click.option("--auto", is_flag=True, help="Run without asking for confirmation.")
@click.option("--force", is_flag=True, help="Replace finished shards that were generated with other settings.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
def generate_command(
    engine: str,
    ray_address: str | None,
    workers: int | None,
    max_failures: str | None,
    exclude: Path | None,
    auto: bool,
    force: bool,
    dry_run: bool,
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
    engine_context = _engine_context(engine, ray_address, workers)
    config = Config(
        scales=tuple(scale for group in scales for scale in group),
        degradation=load_recipe(degradation) if degradation is not None else None,
        up=not no_up,
        **settings,
    )
    if dry_run:
        click.echo(fitted(_preparation_text(prepare(config, exclude)), sys.stdout))
        return
    with engine_context as active_engine:
        outcome = generate(config, active_engine, functools.partial(_confirm, auto=auto, force=force), exclude)
    say(_outcome_text(outcome, config.output, config.size))
    _exit_by_failures(outcome, max_failures)


class NotConfirmedError(click.Abort):
    """The user did not confirm the run. The message says which options run it without a prompt."""


def _engine_context(engine: str, ray_address: str | None, workers: int | None) -> AbstractContextManager[Engine]:
    """Return the engine as a context manager. UsageError for options that exclude each other."""
    if engine == "ray":
        if workers == 0:
            raise UsageError("--workers 0: expected 1 or more with --engine ray")
        try:  # Ray is optional and takes a second to import
            from shardgen.engines.ray import ray_engine
        except ImportError as error:
            raise UsageError(f"--engine ray requires Ray ({error}); {install_command('ray')}") from error
        return ray_engine(ray_address, workers)
    if ray_address is not None:
        raise UsageError(f"--ray-address {ray_address} requires --engine ray")
    num_workers = available_cpus() if workers is None else workers
    return nullcontext(PoolEngine(num_workers) if num_workers else SerialEngine())


def _confirm(preparation: Preparation, auto: bool, force: bool) -> None:
    replaced = [] if force else _replacement_lines(preparation)
    if replaced and auto:
        raise UsageError(
            f"{'; '.join(replaced)}. Pass --force (make: FORCE=1) to replace them, or another --output to keep them."
        )
    if not (preparation.tasks or replaced):
        if preparation.excluded:
            say("\n".join(_photo_lines(preparation)))
        return
    say(_preparation_text(preparation))
    with nonessential_output():
        if auto:
            return
        if replaced and not _agrees("Replace shards generated with other settings?", default=False):
            raise NotConfirmedError("Pass --auto --force to replace them without a prompt, or another --output.")
        if not replaced and not _agrees("Proceed?", default=True):
            raise NotConfirmedError("Pass --auto to run without a prompt.")


def _agrees(question: str, default: bool) -> bool:
    try:
        return click.confirm(question, default=default)
    except click.Abort:  # Ctrl-C, or the end of the input
        return False


def _photo_lines(p: Preparation) -> list[str]:
    listing = p.listing
    others = f", {plural(listing.num_ignored, 'other file')} ignored" if listing.num_ignored else ""
    links = listing.num_links_skipped
    loops = f", {plural(links, 'link')} to already listed folders not followed" if links else ""
    lines = [
        f"Photos  {p.num_photos:,} of {len(listing.photos):,} in {p.config.input}"
        f" ({p.photos_of('train'):,} train, {p.photos_of('val'):,} val){others}{loops}",
    ]
    return lines + (_exclusion_lines(p.excluded) if p.excluded else [])


def _preparation_text(p: Preparation) -> str:
    lines = _photo_lines(p)
    for inventory in p.inventories:
        scale, hr = inventory.scale, p.config.hr_size(inventory.scale)
        cropped = f" ({p.config.size} cropped to a multiple of {scale})" if hr != p.config.size else ""
        about = "about " if p.config.fit == "tile" else ""
        samples = plural(p.samples_to_build(scale), "sample")
        counts = [f"{plural(len(inventory.to_build), 'shard')} to build ({about}{samples})"]
        counts += [f"{len(inventory.kept):,} kept"] if inventory.kept else []
        counts += [f"{len(inventory.stale):,} outdated to remove"] if inventory.stale else []
        settings = f"HR {hr} px{cropped}, LR {hr // scale} px, {_lr_method(p.config)}, {p.config.codec}"
        lines.append(f"{scale_folder(scale)}  {settings}: {', '.join(counts)}")
    lines += _replacement_lines(p)
    need = f"{format_bytes(p.bytes_to_build)} needed"
    lines.append(f"Store   {need}" if p.free_bytes is None else f"Disk    {need}, {format_bytes(p.free_bytes)} free")
    return "\n".join(lines)


def _replacement_lines(p: Preparation) -> list[str]:
    """Return a line per scale that was finished with other settings: their differences, and what would be removed."""
    lines = []
    for inventory in p.inventories:
        if inventory.changed:
            differences = (_difference(name, *values) for name, values in inventory.changed.items())
            num = len(inventory.stale)
            removed = f"{plural(num, 'finished shard')} would be removed"
            lines.append(f"{inventory.folder} was generated with other settings ({', '.join(differences)}): {removed}")
    return lines


def _difference(name: str, old: Any, new: Any) -> str:
    note = f" ({', '.join(recipe_differences(old, new))})" if name == "degradation" and old and new else ""
    return f"{name} {_formatted(old)} -> {_formatted(new)}{note}"


def _formatted(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value.get('name')} with {plural(len(value.get('steps', ())), 'step')}"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _exclusion_lines(excluded: Exclusion) -> list[str]:
    name, unknown = excluded.file.name, excluded.unknown
    lines = [f"Exclude {plural(excluded.num_photos, 'photo')} listed in {name}"]
    if unknown:
        some = ", ".join(printable(path)[:200] for path in unknown[:3])
        dots = ", ..." if len(unknown) > 3 else ""
        lines.append(f"  {plural(len(unknown), 'path')} in {name} not found in the input: {some}{dots}")
    return lines


def _lr_method(config: Config) -> str:
    method = config.degradation.name if config.degradation else config.method
    return f"{method}, {config.variants} variants" if config.variants > 1 else method


def _outcome_text(outcome: Outcome, output: Address, size: int) -> str:
    if not (outcome.built or outcome.removed):
        return f"All {outcome.kept:,} shards are up to date." if outcome.kept != 1 else "The only shard is up to date."
    lines = []
    for scale, manifest in outcome.manifests.items():
        totals = manifest["totals"]
        extras = {
            f"upscaled (smaller than {size} px)": totals["enlarged"],
            "skipped (smaller than a tile)": totals["skipped"],
            "failed": totals["failures"],
        }
        content = f"{plural(totals['samples'], 'sample')} in {plural(totals['shards'], 'shard')}"
        lines.append(
            f"{output / scale_folder(scale)}: {content}, {format_bytes(totals['bytes'])}"
            + "".join(f", {count:,} {what}" for what, count in extras.items() if count)
        )
    lines.append(f"Shards: {outcome.built:,} built, {outcome.kept:,} kept, {outcome.removed:,} removed.")
    if outcome.work.photos:
        rate = outcome.work.photos / max(outcome.work.wall_s, 1e-9)
        speed = f"{plural(outcome.work.photos, 'photo')} in {outcome.work.wall_s:.1f} s ({rate:.0f} photos/s)"
        lines.append(f"{speed}; see {output / STATS_NAME}.")
    return "\n".join(lines)


def _exit_by_failures(outcome: Outcome, max_failures: str | None) -> None:
    failures = outcome.failures
    num_photos = max(manifest["totals"]["photos"] for manifest in outcome.manifests.values())
    limit = failure_limit(max_failures, num_photos)
    if failures:
        example = f"{printable(failures[0]['path'])[:200]}: {failures[0]['reason']}"
        some = f"{len(failures):,} of {num_photos:,} photos failed (--max-failures: {limit:,})"
        click.echo(f"{some}, e.g. {example}. The manifest lists all of them.", err=True)
    if not outcome.num_samples:
        raise ReportedError("no photo produced a sample; the manifest lists the reasons")
    if len(failures) > limit:
        raise ReportedError(
            f"{plural(len(failures), 'photo')} failed, more than the {limit:,} that --max-failures allows. The shards "
            "are complete and usable without them. Fix or remove these photos, or raise --max-failures."
        )
