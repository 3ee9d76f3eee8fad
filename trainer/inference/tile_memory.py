"""Choose the tile size by speed and free memory, and reduce it if memory still runs out."""

import gc
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from srshards.errors import UsageError
from srshards.process.resources import available_memory_bytes
from srshards.process.shortages import is_out_of_memory
from trainer.inference.probe import probe_px, run_probe
from trainer.inference.tiles import TileRule, apply_in_tiles
from trainer.models import Network

# A forward pass needs more than its tensors: on a CPU, with oneDNN's reordered copies, 1.0 to 1.8 times as much was
# measured for compact and rrdb at 1x, 2x and 4x. Half of the free memory is left to other programs.
_OVERHEAD = 2.0
_SHARE_OF_FREE = 0.5
_MAX_PASS_BYTES = 8 << 30  # more is not faster, and some kernels index elements with 32 bits

# On a CPU, larger tiles are not faster: with edges of 32 margins, 13 % of the work is margins, and the tensors of fast
# networks still fit into the last-level cache. See docs/explanation/performance.md.
_CPU_MARGINS = 32
_CPU_MIN_PX = 256

_known_bytes: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()


def apply_within_memory(
    model: nn.Module,
    image: Tensor,
    tile_px: int | None,
    rule: TileRule,
    dtype: torch.dtype = torch.float32,
    on_progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Call `apply_in_tiles`, halving the tile when memory runs out. UsageError if the smallest useful tile fails.

    `on_progress` starts again with each size.
    """
    while True:
        try:
            return apply_in_tiles(model, image, tile_px, rule, dtype, on_progress)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        free_failed_pass()
        tried = tile_px or max(image.shape[2:])
        if tried <= rule.smallest_px:
            smaller_tile = f"pass --tile {rule.minimum_px}, which is slow, " if rule.minimum_px < tried else ""
            raise UsageError(
                f"out of memory even with tiles of {tried} px; {smaller_tile}close other programs, use a smaller "
                "network or, on a GPU, pass --device cpu"
            )
        tile_px = max(rule.aligned_down(tried // 2), rule.smallest_px)


def free_failed_pass() -> None:
    """Free the memory of a forward pass that ran out of it.

    To be called after the except clause, where the exception no longer references the tensors of the pass.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def choose_tile(model: Network, height: int, width: int, device: torch.device) -> int | None:
    """Return the edge in px of the largest useful tile that fits in the device's free memory; None if the image fits.

    On a CPU, tiles of more than 32 margins are not useful. A forward pass is assumed to need twice the bytes per pixel
    that `tensor_bytes_per_pixel` counts, and may use half of the free memory, on a CPU without the uint8 output, at
    most 8 GiB. The result is at least `TileRule.smallest_px`.
    """
    rule = TileRule.of(model.spec)
    budget = _SHARE_OF_FREE * free_bytes(device)
    if device.type == "cpu":
        budget -= 3 * height * width * model.scale**2
    pixels = min(budget, _MAX_PASS_BYTES) / (_OVERHEAD * tensor_bytes_per_pixel(model))
    if device.type == "cpu":
        pixels = min(pixels, max(_CPU_MARGINS * rule.aligned_margin_px, _CPU_MIN_PX) ** 2)
    if height * width <= pixels:
        return None
    edge = max(rule.aligned_down(int(max(pixels, 0) ** 0.5)), rule.smallest_px)
    return edge if edge < max(height, width) else None


def tensor_bytes_per_pixel(model: nn.Module) -> float:
    """Return the peak bytes of live tensors in a forward pass, excluding parameters, per pixel of its input."""
    if model not in _known_bytes:
        with _LiveBytes() as counter:
            run_probe(model)
        _known_bytes[model] = counter.peak / probe_px(model) ** 2
    return _known_bytes[model]


class _LiveBytes(TorchFunctionMode):
    """Tracks the bytes of all tensors returned by functions, for as long as they are referenced."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._alive[reference.cdata] = (reference, storage.nbytes())
        expired = [key for key, (reference, _) in self._alive.items() if reference.expired()]  # type: ignore[no-untyped-call]
        for key in expired:
            del self._alive[key]
        self.peak = max(self.peak, sum(num_bytes for _, num_bytes in self._alive.values()))
        return result


def free_bytes(device: torch.device) -> int:
    """Return the memory in bytes still available to this process; on CPUs within the limits of its cgroups."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return available_memory_bytes()
