"""The lower bound that the rate of the loader is compared with: processes that only copy (`copy_floor.c`)."""

import subprocess
from pathlib import Path

from benchmarks.common import timed_command

_SECONDS = 1.0
_IMAGE_BYTES = 3 * 512 * 512


class CopyFloor:
    """Compiles the program into a folder. RunFailedError when that is impossible.

    `images` is a file of images of 512 px, e.g. of the triplets.
    """

    def __init__(self, folder: Path, images: Path) -> None:
        self._images = images
        self._program = folder / "copy_floor"
        source = Path(__file__).parent / "copy_floor.c"
        timed_command(["gcc", "-O3", "-march=native", str(source), "-o", str(self._program)])

    def pairs_per_second(self, processes: int) -> float:
        """Return how many pairs of 192 px squares `processes` processes copy per second, at the same time."""
        count = self._images.stat().st_size // _IMAGE_BYTES
        command = [str(self._program), str(self._images), str(count), str(_SECONDS)]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        return sum(float(process.communicate()[0]) for process in running) / 2
