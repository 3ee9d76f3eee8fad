"""Evaluate a network: PSNR and SSIM of its output per image, compared with bicubic upscaling."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from srshards.errors import RunError
from srshards.process.shortages import is_out_of_memory
from trainer.evaluation.metrics import Quality, measure
from trainer.evaluation.pairs import Pair
from trainer.evaluation.transfer import download, upload
from trainer.inference.image_function import as_function
from trainer.inference.tile_memory import choose_tile, free_failed_pass
from trainer.inference.tiles import NOT_FINITE, to_levels
from trainer.models import Network

Tile: TypeAlias = int | Literal["auto"] | None

_MAX_IMAGES = 16  # of a batch


class PairResult(NamedTuple):
    """The metrics of one image."""

    name: str
    network: Quality
    bicubic: Quality


@dataclass(frozen=True)
class BatchResult:
    """The results for images of equal size, on the network's device, or on the host if they were processed in tiles.

    `outputs` is N x 3 x H x W uint8. `network` and `bicubic` are N x 4 float64, as `measure` returns them; `network` is
    NaN where the network's output is not finite, and `bicubic` is None unless it was requested.
    """

    pairs: list[Pair]
    outputs: Tensor
    network: Tensor
    bicubic: Tensor | None


def evaluate_pairs(network: Network, pairs: Iterable[Pair], tile: Tile = "auto") -> Iterator[PairResult]:
    """Yield the result of each pair, in order. Arguments and errors are those of `evaluate_batches`.

    RunError if the network's output is not finite.
    """
    for batch in evaluate_batches(network, pairs, tile):
        assert batch.bicubic is not None
        names = [pair.name for pair in batch.pairs]
        yield from map(PairResult, names, *map(to_qualities, download([batch.network, batch.bicubic])))


def evaluate_batches(
    network: Network, pairs: Iterable[Pair], tile: Tile = "auto", with_bicubic: bool = True
) -> Iterator[BatchResult]:
    """Yield the results of the pairs in order, excluding a border of `scale` px as published tables do.

    The host does not wait for a GPU, which may still be computing the results. `tile` is the edge in px of the tiles to
    process images in, None for complete images, or "auto" for tiles only if memory is insufficient otherwise. Tiles are
    reduced if memory runs out; UsageError if that does not suffice.
    """
    device = next(network.parameters()).device
    with _evaluation_mode(network):
        for batch in _batches(network, device, pairs, tile):
            yield from _evaluate(network, device, batch, tile, with_bicubic)


@contextmanager
def _evaluation_mode(network: Network) -> Iterator[None]:
    """Call `eval` at the start, also if the network is in that mode: it may prepare weights that changed since."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def to_qualities(metrics: Tensor) -> list[Quality]:
    """Convert the `network` or `bicubic` of a BatchResult, on the host. RunError if an output is not finite."""
    rows = metrics.tolist()
    if any(map(math.isnan, chain(*rows))):
        raise RunError(NOT_FINITE)
    return [Quality(*row) for row in rows]


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


def _evaluate(
    network: Network, device: torch.device, batch: list[Pair], tile: Tile, with_bicubic: bool
) -> Iterator[BatchResult]:
    """Evaluate a batch as a whole or, if memory is insufficient, each image in tiles."""
    if tile == "auto":
        height, width = batch[0].input.shape[:2]
        tile = choose_tile(network, height, width, device)
    if tile is None:
        try:
            yield _evaluate_whole(network, device, batch, with_bicubic)
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        free_failed_pass()
    for pair in batch:
        yield _evaluate_in_tiles(network, device, pair, tile, with_bicubic)


@torch.inference_mode()
def _evaluate_whole(network: Network, device: torch.device, batch: list[Pair], with_bicubic: bool) -> BatchResult:
    inputs, hr = (upload(images, device) for images in ([pair.input for pair in batch], [pair.hr for pair in batch]))
    output = network(inputs.float().div_(255))
    levels = to_levels(output)
    # The sum of a non-finite output is not finite, and that of a finite one cannot overflow in float64.
    is_finite = output.sum((1, 2, 3), dtype=torch.float64).isfinite()
    del output  # before the metrics need memory
    metrics = measure(levels, hr, batch[0].scale).where(is_finite[:, None], torch.nan)
    bicubic = None
    if with_bicubic:
        bicubic = measure(upload([pair.bicubic() for pair in batch], device), hr, batch[0].scale)
    return BatchResult(batch, levels, metrics, bicubic)


@torch.inference_mode()
def _evaluate_in_tiles(
    network: Network, device: torch.device, pair: Pair, tile: int | None, with_bicubic: bool
) -> BatchResult:
    """Evaluate one image, of which only tiles are on the device. RunError if the network's output is not finite."""
    host = torch.device("cpu")
    output, hr = (upload([image], host) for image in (as_function(network, device, tile)(pair.input), pair.hr))
    bicubic = measure(upload([pair.bicubic()], host), hr, pair.scale) if with_bicubic else None
    return BatchResult([pair], output, measure(output, hr, pair.scale), bicubic)
