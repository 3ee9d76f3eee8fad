"""A compact list of shards, cheap to pickle: every worker receives all of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np


class ShardList(Sequence[tuple[Path, int]]):
    """Pairs of tar path and number of samples, stored as NumPy arrays; paths are built on access."""

    def __init__(self, folder: Path, names: Sequence[str], samples: Sequence[int]) -> None:
        self._folder = folder
        self._names = np.array(names, np.bytes_)
        self._samples = np.array(samples, np.int64)

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> tuple[Path, int]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[Path, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Path, int] | Sequence[tuple[Path, int]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return self._folder / f"{self._names[index].decode()}.tar", int(self._samples[index])
