"""No store, with a recipe: every patch is derived from its JPEG with separately drawn degradation parameters.

As in Real-ESRGAN's data loader: decode, crop at random, degrade, cut the patch from the result. `variant` is the edge
of the crop in px: 400, as in Real-ESRGAN, or 512, the complete HR image. All steps are the generator's own functions
(`benchmarks/degrade_photo.py`).
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.degrade_photo import online_pair
from benchmarks.peers import map_style
from benchmarks.peers.pictures import opencv
from benchmarks.peers.task import Batch, Pixels, Task
from shardgen.degradation.recipe_file import load_recipe

RECIPE = "realesrgan"


def prepare(task: Task) -> None:
    """Nothing to prepare."""


def batches(task: Task) -> Iterator[Batch]:
    """Yield batches forever."""
    paths = sorted(path for path in Path(task.photos).rglob("*") if path.is_file())
    return map_style.batches(task, len(paths), partial(_open, paths, int(task.variant)))


def _open(paths: list[Path], edge: int) -> Callable[[int], tuple[Pixels, Pixels]]:
    opencv()  # without threads
    recipe = load_recipe(RECIPE)
    return lambda index: online_pair(paths[index], edge, recipe)
