"""Readers for tests of data workers. Without PyTorch: each worker imports this module."""

from pathlib import Path

import numpy as np

from srshards.loader.batches import BatchReader, DamagedRow, Patches


class Scribbler(BatchReader):
    """Fills each chunk with a constant, then with its step numbers, and appends a byte to `log` per chunk."""

    log: Path

    def read(self, steps: range, rows: range, to: Patches, next_steps: range = range(0)) -> tuple[DamagedRow, ...]:
        for images in to:
            images[:] = 0xEE
            images[:] = np.fromiter(steps, np.uint8).reshape(-1, 1, 1, 1, 1)
        with open(self.log, "ab") as file:
            file.write(b".")
        return ()


class Buggy(BatchReader):
    """Fails in every chunk."""

    def read(self, steps: range, rows: range, to: Patches, next_steps: range = range(0)) -> tuple[DamagedRow, ...]:
        raise ZeroDivisionError(f"in step {steps.start}")
