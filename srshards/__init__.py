"""Read shards of super-resolution training pairs at close to memory speed.

    import srshards

    shards = srshards.open("shards/scale_4x")                    # a sequence of samples
    dataset = srshards.PatchDataset(shards, patch_size=192)      # for PyTorch's DataLoader
    loader = srshards.PatchLoader(shards, patch_size=192, batch_size=16)
    pipeline = srshards.webdataset(shards, patch_size=192)

docs/how-to/library.md shows each of them in use. Only the names in `__all__` are public; the rest may change in any
release.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from srshards.extras import install_hint

if TYPE_CHECKING:
    from srshards.errors import ArgumentError, RunError, UsageError, WorkerDiedError
    from srshards.imaging.tlc import decode as decode_tlc
    from srshards.loader.batches import DamagedSample
    from srshards.loader.dataset import PatchDataset
    from srshards.loader.patch_batch import PatchBatch
    from srshards.loader.patch_loader import PatchLoader
    from srshards.loader.patch_pair import PatchPair
    from srshards.loader.pipeline import webdataset
    from srshards.shards.folder import Shards
    from srshards.shards.opening import open_shards as open
    from srshards.shards.sample import Sample
    from srshards.storage.retry import StoreError

if sys.platform == "win32":
    raise ImportError("sr-shards requires Linux; on Windows, install it in WSL 2")

__version__ = "1.0.0"

__all__ = (
    "ArgumentError",
    "DamagedSample",
    "PatchBatch",
    "PatchDataset",
    "PatchLoader",
    "PatchPair",
    "RunError",
    "Sample",
    "Shards",
    "StoreError",
    "UsageError",
    "WorkerDiedError",
    "__version__",
    "decode_tlc",
    "open",
    "webdataset",
)

# Imported on first access: PyTorch alone takes seconds to import, and generating shards does not need it.
_EXPORTS = {
    "ArgumentError": ("srshards.errors", "ArgumentError"),
    "DamagedSample": ("srshards.loader.batches", "DamagedSample"),
    "PatchBatch": ("srshards.loader.patch_batch", "PatchBatch"),
    "PatchDataset": ("srshards.loader.dataset", "PatchDataset"),
    "PatchLoader": ("srshards.loader.patch_loader", "PatchLoader"),
    "PatchPair": ("srshards.loader.patch_pair", "PatchPair"),
    "RunError": ("srshards.errors", "RunError"),
    "Sample": ("srshards.shards.sample", "Sample"),
    "Shards": ("srshards.shards.folder", "Shards"),
    "StoreError": ("srshards.storage.retry", "StoreError"),
    "UsageError": ("srshards.errors", "UsageError"),
    "WorkerDiedError": ("srshards.errors", "WorkerDiedError"),
    "decode_tlc": ("srshards.imaging.tlc", "decode"),
    "open": ("srshards.shards.opening", "open_shards"),
    "webdataset": ("srshards.loader.pipeline", "webdataset"),
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _EXPORTS[name]
    try:
        value = globals()[name] = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if hint := install_hint(error):
            raise ModuleNotFoundError(f"srshards.{name}: {hint}", name=error.name) from error
        raise
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
