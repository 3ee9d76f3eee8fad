"""`python -m trainer evaluate`: metrics of one or more networks, compared with each other and with bicubic."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from srshards.errors import UsageError
from srshards.format import Address
from srshards.imaging.provenance import COMPARE_PAGE_WRITER
from srshards.process.interrupt import loading
from srshards.terminal.help import Command
from srshards.terminal.params import ADDRESS, BYTE_SIZE, PATH, FileToWrite, OneFolder
from srshards.terminal.sizes import format_bytes
from srshards.terminal.text import Bar, Choice, fitted, say
from trainer.commands.evaluation_output import SINGLE_NAME, EvaluatedNetwork, as_json, result_text
from trainer.commands.options import METRIC_WEIGHTS
from trainer.commands.tables import DEFAULT_METRICS
from trainer.commands.types import METRIC_NAMES, NAMED_SET, Tile
from trainer.evaluation.names import short_names
from trainer.evaluation.results import SetResult
from trainer.evaluation.set_names import NamedSet, check_names
from trainer.metrics_table import OWN, PERCEPTUAL

if TYPE_CHECKING:  # these import PyTorch or the extra `report`
    from trainer.evaluation.compare import Comparison
    from trainer.evaluation.sets import EvaluationSet
    from trainer.report.compare_page import ComparePage


@click.command("evaluate", cls=Command, short_help="Measure networks, compared with each other and with bicubic.")
@click.option(
    "--weights",
    type=PATH,
    multiple=True,
    required=True,
    help="model.pth or best.pth of a run, or other weights; repeat it to compare networks.",
)
@click.option("--shards", cls=OneFolder, type=ADDRESS, help="Shard folder of one scale; its --split is evaluated.")
@click.option("--cache", type=PATH, help="Shard cache, as for training.")
@click.option("--cache-bytes", type=BYTE_SIZE, help="Size limit of the cache.  [default: most of the free disk space]")
@click.option("--split", type=Choice(("train", "val")), default="val", show_default=True, help="Split of --shards.")
@click.option("--hr", type=PATH, help="Folder of HR photos, instead of --shards; LR is computed with MATLAB's bicubic.")
@click.option(
    "--val",
    "named",
    type=NAMED_SET,
    multiple=True,
    help="Further images, HR photos or shards, e.g. Set5=photos/Set5; repeat it for several sets.",
)
@click.option("--scale", type=click.IntRange(2, 8), help="Scale for HR photos.  [default: the network's]")
@click.option(
    "--metrics",
    type=METRIC_NAMES,
    default=",".join(DEFAULT_METRICS),
    show_default=True,
    help=f"Metrics, separated by commas; also {', '.join(PERCEPTUAL)} (extra `metrics`).",
)
@METRIC_WEIGHTS
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda or cuda:1; auto uses a GPU if there is one."
)
@click.option("--tile", type=Tile(), default="auto", show_default=True, help="Tile edge in px, as for upscale.")
@click.option("--json", "print_json", is_flag=True, help="Print the values of every image as JSON.")
@click.option(
    "--compare-page",
    type=FileToWrite(COMPARE_PAGE_WRITER, "compare.html"),
    help="HTML file to write, with sliders over the images in which the networks differ most.",
)
def evaluate_command(
    weights: tuple[Path, ...],
    shards: Address | None,
    cache: Path | None,
    cache_bytes: int | None,
    split: str,
    hr: Path | None,
    named: tuple[NamedSet, ...],
    scale: int | None,
    metrics: tuple[str, ...],
    metric_weights: Path | None,
    device: str,
    tile: int | Literal["auto"] | None,
    print_json: bool,
    compare_page: Path | None,
) -> None:
    """Measure networks and bicubic upscaling, excluding a border of `scale` px.

    \b
    Examples:
      python -m trainer evaluate --weights runs/lite-4x/best.pth --shards shards/scale_4x
      python -m trainer evaluate --weights runs/lite-4x/best.pth --val Set5=photos/Set5 --val Set14=photos/Set14
      python -m trainer evaluate --weights a.pth --weights b.pth --hr photos --compare-page compare.html
    """
    if shards is None and hr is None and not named:
        raise UsageError(
            "no images to evaluate; pass --shards shards/scale_4x, --hr FOLDER_OF_PHOTOS or --val NAME=FOLDER"
        )
    if shards is not None and hr is not None:
        raise UsageError("pass either --shards or --hr, not both")
    check_names(named, "--val")
    names = _names(weights)
    with loading():
        from srshards.process.allocator import keep_freed_memory
        from srshards.shards.opening import open_shards
        from trainer.evaluation.compare import Comparison
        from trainer.evaluation.compared_sets import ImageSource, common_scale, open_sets
        from trainer.evaluation.perceptual import load_metrics
        from trainer.models.weights import load_network
        from trainer.training.device import choose_device, limit_threads

        if compare_page is not None:
            from trainer.report.compare_page import ComparePage

    limit_threads()
    torch_device = choose_device(device)
    if torch_device.type == "cpu":
        keep_freed_memory()
    of_pyiqa = [metric for metric in metrics if metric in PERCEPTUAL]
    perceptual = load_metrics(of_pyiqa, torch_device, metric_weights) if of_pyiqa else None
    networks = {name: load_network(path) for name, path in zip(names, weights, strict=True)}
    opened = open_shards(shards, cache=cache, cache_bytes=cache_bytes) if shards is not None else None
    scale = common_scale(dict(zip(weights, networks.values(), strict=True)), opened, scale)
    source = ImageSource(opened, split, hr, named, (*OWN, *of_pyiqa), cache, cache_bytes)
    sets = open_sets(source, scale, {network.spec.scale == 1 for network in networks.values()})
    evaluated = [
        EvaluatedNetwork(name, str(path), network.spec.name, network.spec.scale)
        for (name, network), path in zip(networks.items(), weights, strict=True)
    ]
    page = None if compare_page is None else ComparePage([(one.name, one.description) for one in evaluated], len(sets))
    on_device = {name: network.to(torch_device) for name, network in networks.items()}
    comparison = Comparison(on_device, metrics, perceptual, tile, with_versions=page is not None)
    results = [_evaluate_set(comparison, by_input, page, len(sets)) for by_input in sets]
    if print_json:
        click.echo(json.dumps(as_json(evaluated, results, metrics), ensure_ascii=False, indent=2, allow_nan=False))
    else:
        click.echo(fitted(result_text(evaluated, results, metrics), sys.stdout))
    if page is not None and compare_page is not None:
        num_bytes = page.write(compare_page)
        say(f"{compare_page}: {format_bytes(num_bytes)}", err=print_json)


def _names(weights: Sequence[Path]) -> list[str]:
    """Return the names of the networks in tables. UsageError if a file was given twice."""
    seen: dict[Path, Path] = {}
    for path in weights:
        if (same := seen.setdefault(path.resolve(), path)) is not path:
            raise UsageError(f"--weights {same} and --weights {path} are the same file; pass each file once")
    return [SINGLE_NAME] if len(weights) == 1 else short_names([Path(os.path.abspath(path)) for path in weights])


def _evaluate_set(
    comparison: Comparison, by_input: dict[bool, EvaluationSet], page: ComparePage | None, num_sets: int
) -> SetResult:
    """Evaluate a set, with a progress bar. `by_input` is as for `Comparison.run`."""
    first = next(iter(by_input.values()))
    result = SetResult(first.name, first.source, first.scale)
    crops = None if page is None else page.begin(result)
    bar = Bar(comparison.run(by_input), total=first.num_images, desc=first.name if num_sets > 1 else "images", unit="")
    for image in bar:
        result.images.append(image.result)
        if crops is not None:
            crops.add(image.result, image.versions)
    return result
