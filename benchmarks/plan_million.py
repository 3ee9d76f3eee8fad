"""Plan the shards of synthetic photos and hash each shard's photo list, as a run does before its first photo.

The clock covers `plan_shards` and every `ShardPlan.photos_digest`, not the synthesis of the list. The memory is the
peak of the complete process, including list, plan, interpreter and imports. It is read from VmHWM, which starts at zero
with the program; `ru_maxrss` of getrusage would include the peak of the parent.

    python -m benchmarks.plan_million 1000000
"""

import json
import sys
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from shardgen.planning.config import Config
from shardgen.planning.plan import plan_shards
from shardgen.planning.sources import Photo

_CLASSES = ("animal", "building", "grass", "mountain", "plant", "sky", "water")
_MEAN_PHOTO_BYTES = 150_000
_MTIME_NS = 1_700_000_000 * 10**9


def synthetic_photos(count: int) -> list[Photo]:
    """Return photos that do not exist on disk, with realistic names, sizes and times."""
    return [
        Photo(
            f"{_CLASSES[number % len(_CLASSES)]}/photo_{number:08d}.jpg",
            _MEAN_PHOTO_BYTES + number % 7919,
            _MTIME_NS + number,
        )
        for number in range(count)
    ]


def peak_rss_bytes() -> int:
    """Return the peak resident memory of this process, as the kernel recorded it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def run(count: int) -> dict[str, Any]:
    """Plan `count` photos for scales 2, 3 and 4. Return seconds, peak bytes (`listed`: before planning), and counts."""
    photos = synthetic_photos(count)
    config = Config(input=Path("photos"), output=Path("shards"), scales=(2, 3, 4))
    start_s, start_cpu_s = perf_counter(), process_time()
    listed = peak_rss_bytes()
    shards = plan_shards(photos, config)
    plan_s = perf_counter() - start_s
    digests = {shard.photos_digest for shard in shards}
    total_s = perf_counter() - start_s
    assert len(digests) == len(shards) and sum(len(shard.photos) for shard in shards) == count
    return {
        "photos": count,
        "shards": len(shards),
        "plan_s": round(plan_s, 3),
        "digests_s": round(total_s - plan_s, 3),
        "total_s": round(total_s, 3),
        "cpu_s": round(process_time() - start_cpu_s, 3),
        "listed_rss_bytes": listed,
        "peak_rss_bytes": peak_rss_bytes(),
    }


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]))))
