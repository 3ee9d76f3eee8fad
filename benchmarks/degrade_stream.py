"""Training patches with a recipe, degraded online for each patch or pre-generated: generate shards, count batches."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import rmtree

from benchmarks.common import PhotoSet, folder_bytes, python_module, say, timed_command
from benchmarks.peers.online_recipe import RECIPE
from benchmarks.peers.task import SCALE, Task
from benchmarks.report import Ratio
from benchmarks.stream_measure import Counted, Window
from benchmarks.stream_run import result_in
from benchmarks.stream_stores import HR_PX

# With the default size, a few hundred photos fill two or three shards, and one of two workers would be idle at the end.
SHARD_BYTES = "16MB"
TOUCH = "copied"  # like a training loop that copies batches into its buffers: stricter for fast cases


@dataclass(frozen=True)
class Case:
    """Source of patches: degraded in the data workers from a crop of `online_px`, or shards of `variants`."""

    name: str
    what: str
    online_px: int = 0
    variants: int = 0


ONLINE = (
    Case("online, 400 px", "JPEG, HR of 512 px, a random crop of 400 px degraded, for every patch", online_px=400),
    Case("online, 512 px", "JPEG, HR of 512 px, all of it degraded, for every patch", online_px=512),
)
SHARDS = (
    Case("shards, 8 variants", "this project's loader, npy shards with 8 degradations per photo", variants=8),
    Case("shards, 1 variant", "this project's loader, npy shards with 1 degradation per photo", variants=1),
)
CASES = (*ONLINE, *SHARDS)
EIGHT_VARIANTS = SHARDS[0]
RATIOS = tuple(
    Ratio(f"{EIGHT_VARIANTS.name}, over {case.name}", EIGHT_VARIANTS.name, (case.name,), above=30) for case in ONLINE
)


@dataclass(frozen=True)
class Generated:
    """A timed generation of shards: seconds of the whole command, and the bytes that it wrote."""

    seconds: float
    bytes: int


@dataclass
class Bench:
    """Settings of all runs, and their results by case in the order of the rounds."""

    photos: PhotoSet
    scratch: Path
    window: Window
    batch: int
    patch: int
    workers: int
    generated: dict[str, list[Generated]] = field(default_factory=dict)
    runs: dict[str, list[Counted]] = field(default_factory=dict)

    def generator(self, case: Case) -> list[object]:
        """Return the generator's options without folders."""
        sizes = ["-s", SCALE, "--size", HR_PX, "--shard-bytes", SHARD_BYTES, "--val-fraction", 0]
        recipe = ["--degradation", RECIPE, "--variants", case.variants, "--no-up"]
        return [*sizes, *recipe, "--workers", self.workers, "--auto"]

    def generate(self, case: Case) -> None:
        """Generate the case's shards, replacing those of the previous round."""
        output = self._output(case)
        rmtree(output, ignore_errors=True)
        self.photos.read_into_page_cache()
        folders = ("-i", self.photos.root, "-o", output)
        seconds, _ = timed_command(python_module("shardgen", "generate", *folders, *self.generator(case)))
        self.generated.setdefault(case.name, []).append(Generated(seconds, folder_bytes(output)))
        say(f"          generated {case.name}: {len(self.photos.paths) / seconds:.1f} photos/s")

    def measure(self, case: Case) -> None:
        """Count the case's batches in a fresh process."""
        module = "online_recipe" if case.online_px else "ours"
        command = python_module("benchmarks.stream_run", module, self.task(case).as_json())
        counted = result_in(timed_command([*command, json.dumps(asdict(self.window)), TOUCH])[1])
        self.runs.setdefault(case.name, []).append(counted)
        say(f"          {case.name}: {self.rate(counted):,.0f} patches/s")

    def task(self, case: Case) -> Task:
        """Return the case's task. Online, the photos are the store, so that they are read into the page cache first."""
        photos = str(self.photos.root)
        return Task(
            store=photos if case.online_px else str(self._output(case) / f"scale_{SCALE}x"),
            photos=photos,
            variant=str(case.online_px or ""),
            patch=self.patch,
            batch=self.batch,
            workers=self.workers,
            input="lr",
        )

    def rate(self, counted: Counted) -> float:
        """Return patches per second."""
        return counted.batches * self.batch / counted.seconds

    def rates(self) -> dict[str, list[float]]:
        """Return patches per second by case, in the order of the rounds."""
        return {name: [self.rate(run) for run in runs] for name, runs in self.runs.items()}

    def _output(self, case: Case) -> Path:
        return self.scratch / f"shards_{case.variants}"


def epochs_to_break_even(
    generate_s: Sequence[float], online_s: Sequence[float], shards_s: Sequence[float]
) -> list[float] | None:
    """Return by round the number of epochs after which generating shards breaks even.

    The arguments are seconds of generating and of one epoch. None when an epoch saved nothing in one of the rounds.
    """
    saved_s = [online - shards for online, shards in zip(online_s, shards_s, strict=True)]
    if min(saved_s) <= 0:
        return None
    return [spent / saved for spent, saved in zip(generate_s, saved_s, strict=True)]
