"""Training patches with a recipe: degraded anew for each, or pre-generated. Shards are made, batches are counted."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import rmtree

from benchmarks.common import PhotoSet, folder_bytes, python_module, say, timed_command
from benchmarks.peers.online_recipe import RECIPE
from benchmarks.peers.task import SCALE, Task
from benchmarks.stream_measure import Counted, Window
from benchmarks.stream_run import result_in
from benchmarks.stream_stores import HR_PX
from benchmarks.stream_ways import Ratio

# Some hundred photos would be two or three shards of the usual size, and one of two workers would look on.
SHARD_BYTES = "16MB"
TOUCH = "copied"  # as a training loop does that has memory of its own: the harder clock for what is fast


@dataclass(frozen=True)
class Way:
    """Where patches come from: degraded in the data workers, from a crop of `online_px`, or shards of `variants`."""

    name: str
    what: str
    online_px: int = 0
    variants: int = 0


ONLINE = (
    Way("online, 400 px", "JPEG, HR of 512 px, a random crop of 400 px degraded, for every patch", online_px=400),
    Way("online, 512 px", "JPEG, HR of 512 px, all of it degraded, for every patch", online_px=512),
)
SHARDS = (
    Way("shards, 8 variants", "this project's loader, npy shards with 8 degradations per photo", variants=8),
    Way("shards, 1 variant", "this project's loader, npy shards with 1 degradation per photo", variants=1),
)
WAYS = (*ONLINE, *SHARDS)
MANY = SHARDS[0]
RATIOS = tuple(Ratio(f"{MANY.name}, over {way.name}", MANY.name, (way.name,), TOUCH, 30, True) for way in ONLINE)


@dataclass(frozen=True)
class Generated:
    """Shards that were made: the life of the command, and the bytes of all that it wrote."""

    seconds: float
    bytes: int


@dataclass
class Bench:
    """What all runs have in common, and what they found: by way, in the order of the rounds."""

    photos: PhotoSet
    scratch: Path
    window: Window
    batch: int
    patch: int
    workers: int
    generated: dict[str, list[Generated]] = field(default_factory=dict)
    runs: dict[str, list[Counted]] = field(default_factory=dict)

    def generator(self, way: Way) -> list[object]:
        """What the generator is told, but for the folders."""
        sizes = ["-s", SCALE, "--size", HR_PX, "--shard-bytes", SHARD_BYTES, "--val-fraction", 0]
        recipe = ["--degradation", RECIPE, "--variants", way.variants, "--no-up"]
        return [*sizes, *recipe, "--workers", self.workers, "--auto"]

    def generate(self, way: Way) -> None:
        """Make the way's shards, instead of those of the round before."""
        output = self._output(way)
        rmtree(output, ignore_errors=True)
        self.photos.touch()
        folders = ("-i", self.photos.root, "-o", output)
        seconds, _ = timed_command(python_module("shardgen", "generate", *folders, *self.generator(way)))
        self.generated.setdefault(way.name, []).append(Generated(seconds, folder_bytes(output)))
        say(f"          made {way.name}: {len(self.photos.paths) / seconds:.1f} photos/s")

    def measure(self, way: Way) -> None:
        """Count the way's batches in a fresh process."""
        module = "online_recipe" if way.online_px else "ours"
        command = python_module("benchmarks.stream_run", module, self.task(way).as_json())
        counted = result_in(timed_command([*command, json.dumps(asdict(self.window)), TOUCH])[1])
        self.runs.setdefault(way.name, []).append(counted)
        say(f"          {way.name}: {self.rate(counted):,.0f} patches/s")

    def task(self, way: Way) -> Task:
        """What the way is told. The photos are the store of what has none: whatever a store holds is read first."""
        photos = str(self.photos.root)
        return Task(
            store=photos if way.online_px else str(self._output(way) / f"scale_{SCALE}x"),
            photos=photos,
            variant=str(way.online_px or ""),
            patch=self.patch,
            batch=self.batch,
            workers=self.workers,
            input="lr",
        )

    def rate(self, counted: Counted) -> float:
        """Patches per second."""
        return counted.batches * self.batch / counted.seconds

    def rates(self) -> dict[str, list[float]]:
        """Patches per second by way, in the order of the rounds."""
        return {name: [self.rate(run) for run in runs] for name, runs in self.runs.items()}

    def _output(self, way: Way) -> Path:
        return self.scratch / f"shards_{way.variants}"


def epochs_until_paid_back(
    generate_s: Sequence[float], online_s: Sequence[float], shards_s: Sequence[float]
) -> list[float] | None:
    """The epochs after which making shards has cost no more than doing without, by round.

    Given are the seconds of making them and of an epoch each way. None when one round's epochs saved nothing.
    """
    saved_s = [online - shards for online, shards in zip(online_s, shards_s, strict=True)]
    if min(saved_s) <= 0:
        return None
    return [made / saved for made, saved in zip(generate_s, saved_s, strict=True)]
