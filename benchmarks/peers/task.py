"""Task of a case: the location of the triplets, and the batches to deliver."""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
# N x p x p x 3 uint8 RGB HR patches and the N x q x q x 3 input patches that belong to them: arrays, or CPU tensors.
Batch = tuple[Any, Any]
SCALE = 4


@dataclass(frozen=True)
class Task:
    """One case's work. Sizes in px; `input` is `up` (as large as HR) or `lr`; the case's module defines `variant`.

    `triplets` contains `hr.npy`, `up.npy` and `lr.npy`, N x size x size x 3 uint8 RGB each; `photos` their source
    JPEGs; `store` is the case's own folder.
    """

    store: str
    triplets: str = ""
    photos: str = ""
    variant: str = ""
    patch: int = 192
    batch: int = 16
    workers: int = 2
    input: str = "up"
    crops: int = 1

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        """Read a task from JSON, because FFCV and others may need an older Python than the benchmark."""
        given = json.loads(text)
        return cls(**{field.name: given[field.name] for field in fields(cls)})

    @property
    def folder(self) -> Path:
        """The store folder of the case, created if necessary."""
        path = Path(self.store)
        path.mkdir(parents=True, exist_ok=True)
        return path


def open_triplets(task: Task) -> tuple[Pixels, Pixels]:
    """Return HR and input images, N x size x size x 3 uint8 each, mapped read-only."""
    folder = Path(task.triplets)
    hr, small = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("hr", task.input))
    return hr, small


def pairs(task: Task) -> Iterator[tuple[Pixels, Pixels]]:
    """Yield HR and input image of each triplet as ordinary arrays."""
    hr, small = open_triplets(task)
    for index in range(len(hr)):
        yield np.array(hr[index]), np.array(small[index])


def cut(task: Task, hr: Pixels, small: Pixels) -> tuple[Pixels, Pixels]:
    """Return the same window of both images, at a random position in whole LR px, as views."""
    patch, ratio = task.patch, hr.shape[0] // small.shape[0]
    top, left = (SCALE * random.randrange((edge - patch) // SCALE + 1) for edge in hr.shape[:2])
    y, x, q = top // ratio, left // ratio, patch // ratio
    return hr[top : top + patch, left : left + patch], small[y : y + q, x : x + q]
