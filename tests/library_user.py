"""A program that uses the complete public API, as a user would. Tests run it and type-check it strictly."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

import srshards


def flip(pair: srshards.PatchPair) -> srshards.PatchPair:
    return srshards.PatchPair(hr=pair.hr[:, ::-1].copy(), input=pair.input[:, ::-1].copy())


def describe(shards: srshards.Shards) -> list[str]:
    first: srshards.Sample = shards[0]
    images: list[npt.NDArray[np.uint8]] = [first.hr, first.lr, first.up, *first.lr_variants]
    meta: dict[str, Any] = first.meta
    lines = [f"{sample.key} {sample.hr.shape}" for split in (shards.train, shards.val) for sample in split]
    some: list[srshards.Sample] = shards.train[:3]
    return [*lines, str(meta["class"]), f"{len(images)} {len(some)} {shards.scale} {shards.hr_size} {shards.codec}"]


def take_patches(shards: srshards.Shards) -> int:
    data = srshards.PatchDataset(
        shards, patch_size=16, input="up", split="train", seed=1, augment=False, transform=flip
    )
    data.set_epoch(data.epoch + 1)
    data.load_state_dict(data.state_dict())
    pair: srshards.PatchPair = data[0]
    batches: DataLoader[srshards.PatchPair] = DataLoader(data, batch_size=4, shuffle=True)
    pipeline = srshards.webdataset(shards, patch_size=16, shuffle=10, seed=2, transform=flip)
    pipeline.set_epoch(1)
    return len(data) + len(pair.hr) + sum(len(batch.hr) for batch in batches) + sum(1 for _ in pipeline)


def take_batches(shards: srshards.Shards) -> int:
    with srshards.PatchLoader(
        shards, patch_size=16, batch_size=4, input="up", workers=0, seed=3, device="cpu"
    ) as loader:
        for batch in loader:
            hr: torch.Tensor = batch.hr
            damaged: tuple[srshards.DamagedSample, ...] = batch.damaged
        state = loader.state_dict()
        some: list[srshards.PatchBatch] = list(loader.steps(0, 2))
        seconds: float = loader.wait_s
    other = srshards.PatchLoader(shards, 16, 4, input="up", seed=3, rank=0, world_size=1, resident=True, augment=True)
    other.load_state_dict(state)
    taken = sum(1 for batch in other)
    other.close()
    return len(hr) + len(damaged) + len(some) + int(seconds) + taken + other.memory_bytes


def use_everything(folder: str) -> None:
    shards: srshards.Shards = srshards.open(folder)
    again = srshards.open(Path(folder), cache=None, cache_bytes=None, decode=False, verify=True)
    again.verify()
    describe(shards)
    take_patches(shards)
    take_batches(shards)
    try:
        srshards.open(folder + "/missing")
    except srshards.ArgumentError as error:
        print(error)
    except (srshards.UsageError, srshards.RunError, srshards.StoreError):
        raise
    print(srshards.__version__, len(shards))
