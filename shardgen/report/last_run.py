"""What `generate` noted about its last run, beside the folders of its scales."""

from dataclasses import dataclass

from shardgen.generate.run import STATS_NAME
from srshards.format import Address, FormatError, load_json
from srshards.storage.store import read_bytes


@dataclass(frozen=True)
class LastRun:
    """Photos, seconds of the clock, and seconds of all workers by stage; `excluded` photos were left out by a file."""

    photos: int
    failed: int
    excluded: int
    wall_s: float
    stage_s: dict[str, float]


def read_last_run(folder: Address) -> LastRun | str | None:
    """The last run of a scale's folder; None when it left no note, and what is wrong with one that says nothing."""
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
        return f"{path} cannot be understood: {error!r}"[:300]
