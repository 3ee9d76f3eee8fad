"""Images of any size through a network, in tiles where the whole does not fit into memory, without a seam.

A tile is what the network sees at a time: an inner part, which is kept, and a margin around it, which is there to be
seen and then thrown away. With a margin as wide as the network sees, the inner parts are what the whole image would
have given, but for the last bits of a float, because kernels add up in an order that depends on the size.
"""

import gc
from itertools import product
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from srshards.errors import RunError, UsageError
from srshards.process.resources import available_memory_bytes
from srshards.process.shortages import is_out_of_memory
from trainer.models import Network

# Networks that fold 2 x 2 or 4 x 4 px into channels must find the same pixels in a fold wherever a tile begins.
_ALIGN_PX = 4
_SMALLEST_INNER_PX = 32  # below, nearly all of the work is margins
_PROBE_PX = 64

# A forward pass takes more than its tensors: with oneDNN's reordered copies 1.0 to 1.8 times as much, measured on a CPU
# for compact and rrdb at 1x, 2x and 4x. And other programs want memory too.
_OVERHEAD = 2.0
_SHARE_OF_FREE = 0.5
_LARGEST_PASS_BYTES = 8 << 30  # more is not faster, and some kernels count elements with 32 bits


class _Window(NamedTuple):
    """Along one axis, in px: the network sees start to end, and keep_start to keep_end of that is kept."""

    start: int
    end: int
    keep_start: int
    keep_end: int


@torch.inference_mode()
def enlarge(
    model: nn.Module, image: Tensor, tile_px: int | None, margin_px: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The network's output for an image, N x 3 x scale·H x scale·W, on the image's device, not clamped unless uint8.

    `image` is N x 3 x H x W on any device, float in [0, 1] or uint8 grey levels; tiles of it go where the model is.
    With `dtype` uint8 the output is grey levels, rounded, and takes a quarter of the memory.

    `tile_px` is the edge of what the network sees at a time, the margin on both sides included; None is the whole.
    All tiles have the same size (kernels and graphs are made once), save at the bottom and on the right, where they
    are up to 3 px smaller if the image is no multiple of 4 px. Margins that are narrower than what the network sees
    make differences at the seams.

    UsageError when nothing is left of a tile between its margins; RunError when uint8 would hide values that are not
    finite.
    """
    height, width = image.shape[2:]
    model_device, model_dtype = _home(model, image)
    output: Tensor | None = None
    for row, column in product(_windows(height, tile_px, margin_px), _windows(width, tile_px, margin_px)):
        tile = image[:, :, row.start : row.end, column.start : column.end].to(model_device)
        seen = tile.to(model_dtype).div(255) if tile.dtype == torch.uint8 else tile.to(model_dtype)
        made = model(seen)
        scale = made.shape[2] // tile.shape[2]
        if output is None:
            output = torch.empty((*made.shape[:2], height * scale, width * scale), dtype=dtype, device=image.device)
        top, bottom = ((edge - row.start) * scale for edge in (row.keep_start, row.keep_end))
        left, right = ((edge - column.start) * scale for edge in (column.keep_start, column.keep_end))
        rows, columns = (slice(w.keep_start * scale, w.keep_end * scale) for w in (row, column))
        output[:, :, rows, columns] = _converted(made[:, :, top:bottom, left:right], dtype)
    assert output is not None  # an image has at least one window
    return output


def enlarge_within_memory(
    model: nn.Module, image: Tensor, tile_px: int | None, margin_px: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """As `enlarge`, but halves the tile when memory runs out. UsageError when the smallest sensible one is too much."""
    floor = smallest_tile(margin_px)
    while True:
        try:
            return enlarge(model, image, tile_px, margin_px, dtype)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the except clause, where the error no longer holds on to the tensors of the failed pass.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        tried = tile_px or max(image.shape[2:])
        if tried <= floor:
            least = 2 * _aligned_up(margin_px) + _ALIGN_PX
            other = f"try --tile {least}, which is slow, or" if least < tried else "try"
            raise UsageError(
                f"out of memory even in tiles of {tried} px: {other} close other programs, take a smaller network or, "
                "if this is a GPU, --device cpu"
            )
        tile_px = max(tried // 2 // _ALIGN_PX * _ALIGN_PX, floor)


def smallest_tile(margin_px: int) -> int:
    """The edge in px of the smallest tile that is not nearly all margin: multiples of 4."""
    return 2 * _aligned_up(margin_px) + _SMALLEST_INNER_PX


def choose_tile(model: Network, height: int, width: int, device: torch.device) -> int | None:
    """The edge in px of the largest tile that surely fits into the device's free memory; None if the image does.

    Rule: a forward pass takes twice the bytes per pixel that `tensor_bytes_per_pixel` counts, and may take half of
    what is free once the 8-bit output has its place, at most 8 GiB. Never less than the smallest sensible tile.
    """
    budget = _SHARE_OF_FREE * free_bytes(device)
    if device.type == "cpu":
        budget -= 3 * height * width * model.scale**2
    pixels = min(budget, _LARGEST_PASS_BYTES) / (_OVERHEAD * tensor_bytes_per_pixel(model))
    if height * width <= pixels:
        return None
    edge = int(max(pixels, 0) ** 0.5) // _ALIGN_PX * _ALIGN_PX
    edge = max(edge, smallest_tile(model.spec.margin_px))
    return edge if edge < max(height, width) else None


_known_bytes: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()


def tensor_bytes_per_pixel(model: nn.Module) -> float:
    """The most bytes of tensors, parameters apart, that are alive at a time in a forward pass, by pixel of its input.

    Counted in a pass over tensors without content (PyTorch's meta device), which computes nothing.
    """
    if model not in _known_bytes:
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        empty = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
        dtype = next((tensor.dtype for tensor in tensors.values()), torch.float32)
        counter = _LiveBytes()
        with torch.inference_mode(), counter:
            functional_call(model, empty, (torch.empty(1, 3, _PROBE_PX, _PROBE_PX, dtype=dtype, device="meta"),))
        _known_bytes[model] = counter.peak / _PROBE_PX**2
    return _known_bytes[model]


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes behind all tensors that operations return, as long as anything refers to them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._alive[reference.cdata] = (reference, storage.nbytes())
        gone = [key for key, (reference, _) in self._alive.items() if reference.expired()]  # type: ignore[no-untyped-call]
        for key in gone:
            del self._alive[key]
        self.peak = max(self.peak, sum(num_bytes for _, num_bytes in self._alive.values()))
        return result


def free_bytes(device: torch.device) -> int:
    """Memory that this process could still take on the device; on CPUs within the limits of its cgroups."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return available_memory_bytes()


def _windows(size: int, tile_px: int | None, margin_px: int) -> list[_Window]:
    """Windows that begin at multiples of 4 px; the parts that are kept follow each other and make up the whole."""
    if tile_px is None or size <= tile_px:
        return [_Window(0, size, 0, size)]
    margin, tile = _aligned_up(margin_px), tile_px // _ALIGN_PX * _ALIGN_PX
    step = tile - 2 * margin
    if step <= 0:
        least = 2 * margin + _ALIGN_PX
        raise UsageError(
            f"--tile {tile_px}: this network sees {margin_px} px to every side, so a tile needs at least {least} px; "
            f"from {smallest_tile(margin_px)} px on it makes sense"
        )
    last = _aligned_up(size - tile)
    starts = [*range(0, last, step), last]
    edges = [0, *(start + tile - margin for start in starts[:-1]), size]
    ends = [*(start + tile for start in starts[:-1]), size]
    return [_Window(*window) for window in zip(starts, ends, edges[:-1], edges[1:], strict=True)]


def _aligned_up(size: int) -> int:
    return -(-size // _ALIGN_PX) * _ALIGN_PX


def _home(model: nn.Module, image: Tensor) -> tuple[torch.device, torch.dtype]:
    """Where the model's parameters are, and what; a model without any takes the image where it is, in float32."""
    parameter = next(model.parameters(), None)
    return (image.device, torch.float32) if parameter is None else (parameter.device, parameter.dtype)


def _converted(made: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype != torch.uint8:
        return made.to(dtype)
    if not bool(torch.isfinite(made).all()):
        raise RunError("the network's output is not finite: its weights are broken, or too large for half precision")
    return made.float().mul(255).round_().clamp_(0, 255).to(torch.uint8)
