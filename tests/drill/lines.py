"""The lines of the drill: each fault, how often it is done in the whole drill, and how often in the short one."""

import importlib
from collections.abc import Callable
from typing import NamedTuple

from tests.drill.session import Session


class Line(NamedTuple):
    """`where` is the function, as `module.function`: a line's own process imports nothing of the others."""

    fault: str
    where: str
    times: int
    short: int

    def function(self) -> Callable[[Session], None]:
        module, _, name = self.where.partition(".")
        found: Callable[[Session], None] = getattr(importlib.import_module(f"tests.drill.{module}"), name)
        return found


LINES: dict[str, Line] = {
    "generate-killed": Line("SIGKILL of `generate`, resumed", "kill_generate.kill_generate", 200, 2),
    "training-killed": Line("SIGKILL of training, resumed", "kill_training.kill_training", 50, 2),
    "shards-damaged": Line("damage to tar, index, manifest or marker", "corruption.corrupt", 1000, 12),
    "saves-killed": Line("SIGKILL in the middle of a save", "kill_saves.kill_saves", 104, 6),
    "disk-full": Line("a full disk, then room again", "full_disk.fill_up", 20, 2),
    "images-mutated": Line("mutated image files through `generate`", "bad_images.mutate_images", 1000, 30),
    "no-permission": Line("another user, who may not", "no_permission.forbid", 19, 6),
    "clock-set-back": Line("the clock set back, files of another time", "clock.set_back", 40, 4),
    "stores": Line("every fault of an S3 store", "stores.break_stores", 82, 4),
    "stores-training": Line("every fault of an S3 store under training", "store_training.break_training", 64, 4),
    "ray-node-killed": Line("SIGKILL of a Ray node under `generate`", "kill_ray.kill_nodes", 20, 1),
}
