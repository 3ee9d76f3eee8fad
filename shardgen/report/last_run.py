"""The statistics that `generate` or `pack` wrote about its last run."""

from dataclasses import dataclass

from shardgen.generate.run import STATS_NAME
from srshards.format import Address, FormatError, load_json
from srshards.storage.store import read_bytes


@dataclass(frozen=True)
class LastRun:
    """Numbers of photos, wall-clock time in s, and all workers' time by stage in s."""

    photos: int
    failed: int
    excluded: int
    wall_s: float
    stage_s: dict[str, float]


def read_last_run(folder: Address) -> LastRun | str | None:
    """Return the last run of a scale's folder; None if there is no statistics file, its error if it is malformed."""
    path = folder.parent / STATS_NAME
    try:
        value = load_json(path, read_bytes)
        stages = {str(name): float(spent) for name, spent in value["stage_seconds"].items()}
        return LastRun(
            photos=int(value["total_processed"]),
            failed=int(value["total_failed"]),
            excluded=int(value.get("excluded", 0)),
            wall_s=float(value["wall_time"]),
            stage_s=stages,
        )
    except FileNotFoundError:
        return None
    except (FormatError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        return f"{path} is malformed: {error!r}"[:300]
