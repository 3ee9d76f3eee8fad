"""The rank of this process, read from the environment that torchrun sets."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from srshards.errors import ReportedError, UsageError

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_NO_ID = ("", "none")  # TORCHELASTIC_RUN_ID of a job without --rdzv-id


@dataclass(frozen=True)
class RankInfo:
    """Global and local rank of this process. Only rank 0 writes files and messages.

    `job` identifies the torchrun command (None without torchrun); `restarts` is how often it restarted the ranks.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    restarts: int = 0
    job: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "RankInfo":
        """Read torchrun's variables. UsageError if some are missing or contradict each other."""
        present = [name for name in _NAMES[:3] if environment.get(name)]
        if not present:
            return cls()
        missing = [name for name in _NAMES if not environment.get(name)]
        if missing:
            raise UsageError(
                f"the environment sets {', '.join(present)} but not {', '.join(missing)}; start several processes with "
                f"torchrun -m trainer ..., which sets all of them, or unset {' '.join(present)} for a single process"
            )
        numbers = {name: environment[name] for name in _NAMES if name != "MASTER_ADDR"}
        if not all(value.isdecimal() for value in numbers.values()):
            raise UsageError(f"expected integers in the environment, found {_text(numbers)}; start with torchrun")
        rank, world_size, local_rank, local_world_size, _ = map(int, numbers.values())
        if not (rank < world_size and local_rank < local_world_size <= world_size):
            raise UsageError(
                f"the environment is inconsistent: {_text(numbers)}; start with torchrun, which sets these variables"
            )
        restarts = environment.get("TORCHELASTIC_RESTART_COUNT", "")
        return cls(
            rank,
            world_size,
            local_rank,
            local_world_size,
            int(restarts) if restarts.isdecimal() else 0,
            _job(environment.get("TORCHELASTIC_RUN_ID", "")),
        )

    @property
    def is_rank0(self) -> bool:
        return self.rank == 0


SINGLE_PROCESS = RankInfo()


class ReportedByRank0(ReportedError):
    """An error on all ranks whose message only rank 0 prints."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


def _job(run_id: str) -> str:
    """Return torchrun's job ID or, without one, an ID of its process, which does not change when ranks restart."""
    if run_id not in _NO_ID:
        return run_id
    parent = psutil.Process(os.getppid())
    return f"{socket.gethostname()} {parent.pid} {parent.create_time()}"


def _text(numbers: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in numbers.items())
