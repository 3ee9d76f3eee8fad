"""Evaluate a network: metrics of its output per image, compared with bicubic upscaling."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from srshards.errors import RunError
from srshards.process.shortages import is_out_of_memory
from trainer.evaluation.metrics import Quality, measure
from trainer.evaluation.pairs import Pair
from trainer.evaluation.perceptual import PerceptualMetrics
from trainer.evaluation.transfer import download, upload
from trainer.inference.image_function import as_function
from trainer.inference.tile_memory import choose_tile, free_failed_pass
from trainer.inference.tiles import NOT_FINITE, to_levels
from trainer.metrics_table import OWN
from trainer.models import Network

Tile: TypeAlias = int | Literal["auto"] | None

_MAX_IMAGES = 16  # of a batch


class PairResult(NamedTuple):
    """PSNR and SSIM of one image."""

    name: str
    network: Quality
    bicubic: Quality


@dataclass(frozen=True)
class BatchResult:
    """The results for images of equal size, on the network's device, or on the host if they were processed in tiles.

    `outputs` is N x 3 x H x W uint8. `network` and `bicubic` are N x 4 float64, as `measure` returns them, followed by
    a column for each perceptual metric; `network` is NaN where the network's output is not finite, and `bicubic` is
    None unless it was requested.
    """

    pairs: list[Pair]
    outputs: Tensor
    network: Tensor
    bicubic: Tensor | None


class _Request(NamedTuple):
    """The arguments of `evaluate_batches` that are the same for all batches."""

    network: Network
    device: torch.device
    tile: Tile
    with_bicubic: bool
    perceptual: PerceptualMetrics | None


def evaluate_pairs(network: Network, pairs: Iterable[Pair], tile: Tile = "auto") -> Iterator[PairResult]:
    """Yield the result of each pair, in order. Arguments and errors are those of `evaluate_batches`.

    RunError if the network's output is not finite.
    """
    for batch in evaluate_batches(network, pairs, tile):
        assert batch.bicubic is not None
        names = [pair.name for pair in batch.pairs]
        yield from map(PairResult, names, *map(to_qualities, download([batch.network, batch.bicubic])))


def evaluate_batches(
    network: Network,
    pairs: Iterable[Pair],
    tile: Tile = "auto",
    with_bicubic: bool = True,
    perceptual: PerceptualMetrics | None = None,
) -> Iterator[BatchResult]:
    """Yield the results of the pairs in order, excluding a border of `scale` px as published tables do.

    The host does not wait for a GPU, which may still be computing the results. `tile` is the edge in px of the tiles to
    process images in, None for complete images, or "auto" for tiles only if memory is insufficient otherwise. Tiles are
    reduced if memory runs out; UsageError if that does not suffice.
    """
    request = _Request(network, next(network.parameters()).device, tile, with_bicubic, perceptual)
    with _evaluation_mode(network):
        for batch in _batches(network, request.device, pairs, tile):
            yield from _evaluate(request, batch)


@contextmanager
def _evaluation_mode(network: Network) -> Iterator[None]:
    """Call `eval` at the start, also if the network is in that mode: it may prepare weights that changed since."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def to_rows(metrics: Iterable[Tensor]) -> list[list[float]]:
    """Join the `network` or the `bicubic` of BatchResults, on the host, to one row of values per image.

    RunError if an output is not finite.
    """
    rows = [row for tensor in metrics for row in tensor.tolist()]
    if any(math.isnan(value) for row in rows for value in row[: len(OWN)]):
        raise RunError(NOT_FINITE)
    return rows


def to_qualities(metrics: Tensor) -> list[Quality]:
    """Convert the `network` or the `bicubic` of a BatchResult without perceptual metrics. RunError as for `to_rows`."""
    return [Quality(*row) for row in to_rows([metrics])]


def _batches(network: Network, device: torch.device, pairs: Iterable[Pair], tile: Tile) -> Iterator[list[Pair]]:
    """Divide the pairs into batches of images of equal size that fit into memory."""
    batch: list[Pair] = []
    size = 0
    for pair in pairs:
        if batch and (pair.input.shape != batch[0].input.shape or len(batch) == size):
            yield batch
            batch = []
        if not batch:
            size = _batch_size(network, device, pair, tile)
        batch.append(pair)
    if batch:
        yield batch


def _batch_size(network: Network, device: torch.device, pair: Pair, tile: Tile) -> int:
    if isinstance(tile, int):
        return 1
    height, width = pair.input.shape[:2]
    # More than one image per thread is no faster on a CPU.
    size = min(torch.get_num_threads(), _MAX_IMAGES) if device.type == "cpu" else _MAX_IMAGES
    while size > 1 and choose_tile(network, size * height, width, device) is not None:
        size //= 2
    return size


def _evaluate(request: _Request, batch: list[Pair]) -> Iterator[BatchResult]:
    """Evaluate a batch as a whole or, if memory is insufficient, each image in tiles."""
    tile = request.tile
    if tile == "auto":
        height, width = batch[0].input.shape[:2]
        tile = choose_tile(request.network, height, width, request.device)
    if tile is None:
        try:
            yield _evaluate_whole(request, batch)
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        free_failed_pass()
    for pair in batch:
        yield _evaluate_in_tiles(request, pair, tile)


@torch.inference_mode()
def _evaluate_whole(request: _Request, batch: list[Pair]) -> BatchResult:
    scale, device = batch[0].scale, request.device
    inputs, hr = (upload(images, device) for images in ([pair.input for pair in batch], [pair.hr for pair in batch]))
    output = request.network(inputs.float().div_(255))
    levels = to_levels(output)
    # The sum of a non-finite output is not finite, and that of a finite one cannot overflow in float64.
    is_finite = output.sum((1, 2, 3), dtype=torch.float64).isfinite()
    del output  # before the metrics need memory
    metrics = _measure(request, levels, hr, scale).where(is_finite[:, None], torch.nan)
    bicubic = None
    if request.with_bicubic:
        bicubic = _measure(request, upload([pair.bicubic() for pair in batch], device), hr, scale)
    return BatchResult(batch, levels, metrics, bicubic)


@torch.inference_mode()
def _evaluate_in_tiles(request: _Request, pair: Pair, tile: int | None) -> BatchResult:
    """Evaluate one image in tiles, which alone are on the device. RunError if the network's output is not finite."""
    function = as_function(request.network, request.device, tile)
    host = torch.device("cpu")
    output, hr = (upload([image], host) for image in (function(pair.input), pair.hr))
    bicubic = _measure(request, upload([pair.bicubic()], host), hr, pair.scale) if request.with_bicubic else None
    return BatchResult([pair], output, _measure(request, output, hr, pair.scale), bicubic)


def _measure(request: _Request, outputs: Tensor, targets: Tensor, border: int) -> Tensor:
    metrics = measure(outputs, targets, border)
    if request.perceptual is None:
        return metrics
    return torch.cat([metrics, request.perceptual.measure(outputs, targets, border).to(metrics.device)], 1)
