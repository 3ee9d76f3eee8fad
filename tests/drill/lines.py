"""The faults of the drill, with the number of cases in the complete and in the short drill."""

import importlib
from collections.abc import Callable
from typing import NamedTuple

from tests.drill.session import Session


class Line(NamedTuple):
    """`where` is the function as `module.function`, so that the process of a fault imports only its own module."""

    fault: str
    where: str
    times: int
    short: int

    def function(self) -> Callable[[Session], None]:
        module, _, name = self.where.partition(".")
        found: Callable[[Session], None] = getattr(importlib.import_module(f"tests.drill.{module}"), name)
        return found


LINES: dict[str, Line] = {
    "generate-killed": Line("SIGKILL of `generate`, then resume", "kill_generate.kill_generate", 200, 4),
    "training-killed": Line("SIGKILL of training, then resume", "kill_training.kill_training", 50, 2),
    "shards-damaged": Line("damaged tar, index, manifest or marker", "corruption.corrupt", 1000, 30),
    "saves-killed": Line("SIGKILL during a save", "kill_saves.kill_saves", 104, 6),
    "disk-full": Line("full disk, then space again", "full_disk.fill_up", 20, 2),
    "images-mutated": Line("corrupted image files in `generate`", "bad_images.mutate_images", 1000, 60),
    "no-permission": Line("missing permissions", "no_permission.forbid", 19, 6),
    "clock-set-back": Line("clock set back, files with other timestamps", "clock.set_back", 40, 4),
    "stores": Line("faults of an S3 store", "stores.break_stores", 82, 4),
    "stores-training": Line("faults of an S3 store during training", "store_training.break_training", 64, 4),
    "ray-node-killed": Line("SIGKILL of a Ray node during `generate`", "kill_ray.kill_nodes", 20, 1),
}
