"""wids, WebDataset's random access: mapped tars of raw pixels behind a map-style dataset."""

import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import map_style
from benchmarks.peers.task import Batch, Pixels, Task, open_triplets, pairs

_SAMPLES_PER_SHARD = 50


def prepare(task: Task) -> None:
    """Write `shard-000000.tar`, ... with `KEY.hr.raw` and `KEY.input.raw`."""
    shard: list[tuple[Pixels, Pixels]] = []
    for index, pair in enumerate(pairs(task)):
        if index and index % _SAMPLES_PER_SHARD == 0:
            _write(task.folder / f"shard-{index // _SAMPLES_PER_SHARD - 1:06d}.tar", shard)
            shard.clear()
        shard.append(pair)
    _write(task.folder / "shard-last.tar", shard)


def batches(task: Task) -> Iterator[Batch]:
    """Yield batches forever."""
    return map_style.batches(task, sum(shard["nsamples"] for shard in _shards(task)), partial(_open, task))


def _open(task: Task) -> Callable[[int], tuple[Pixels, Pixels]]:
    shapes = [images.shape[1:] for images in open_triplets(task)]
    shards = _shards(task)
    options: Any = {"lru_size": len(shards), "localname": str, "keep": True, "transformations": []}
    data = import_module("wids").ShardListDataset(shards, **options)

    def images(index: int) -> tuple[Pixels, Pixels]:
        sample = data[index]
        hr, small = (
            np.frombuffer(sample[f".{name}.raw"].getvalue(), np.uint8).reshape(shape)  # getbuffer() would copy
            for name, shape in zip(("hr", "input"), shapes, strict=True)
        )
        return hr, small

    return images


def _shards(task: Task) -> list[dict[str, Any]]:
    shards = []
    for path in sorted(task.folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            shards.append({"url": str(path), "nsamples": len(tar.getmembers()) // 2})
    return shards


def _write(path: Path, images: list[tuple[Pixels, Pixels]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index, pair in enumerate(images):
            for name, image in zip(("hr", "input"), pair, strict=True):
                member = tarfile.TarInfo(f"{index:06d}.{name}.raw")
                member.size = image.nbytes
                tar.addfile(member, BytesIO(image.tobytes()))
