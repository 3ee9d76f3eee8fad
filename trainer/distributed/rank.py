"""Which of the processes that torchrun started this one is, as the environment says it."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from srshards.errors import ReportedError, UsageError

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_NO_ID = ("", "none")  # what torchrun calls a job without --rdzv-id


@dataclass(frozen=True)
class Place:
    """Which rank this process is, of all and of those on its machine. Rank 0 leads: it alone writes and speaks.

    `job` names the torchrun command that started it, None without one; `restarts` counts how often it started it again.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1
    restarts: int = 0
    job: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Place":
        """As torchrun says it in the environment. UsageError when only a part of it is there, or it makes no sense."""
        given = [name for name in _NAMES[:3] if environment.get(name)]
        if not given:
            return cls()
        missing = [name for name in _NAMES if not environment.get(name)]
        if missing:
            raise UsageError(
                f"the environment has {', '.join(given)} but no {', '.join(missing)}: start many processes by torchrun "
                f"-m trainer ..., which sets them all; for one process, unset {' '.join(given)}"
            )
        numbers = {name: environment[name] for name in _NAMES if name != "MASTER_ADDR"}
        if not all(value.isdecimal() for value in numbers.values()):
            raise UsageError(f"expected whole numbers in the environment, found {_listed(numbers)}; start by torchrun")
        rank, ranks, local_rank, local_ranks, _ = map(int, numbers.values())
        if not (rank < ranks and local_rank < local_ranks <= ranks):
            raise UsageError(f"these do not fit together: {_listed(numbers)}; start by torchrun, which sets them")
        restarts = environment.get("TORCHELASTIC_RESTART_COUNT", "")
        job = _job(environment.get("TORCHELASTIC_RUN_ID", ""))
        return cls(rank, ranks, local_rank, local_ranks, int(restarts) if restarts.isdecimal() else 0, job)

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> int:
        """This process's part of what its machine has so many of; at least 1."""
        return max(1, count // self.local_ranks)


ONE_PROCESS = Place()


class ReportedByRank0(ReportedError):
    """An error of all ranks, of which rank 0 has the message."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


def _job(run_id: str) -> str:
    """torchrun's name for its job, or its process, which stays the same when it starts the ranks again."""
    if run_id not in _NO_ID:
        return run_id
    parent = psutil.Process(os.getppid())
    return f"{socket.gethostname()} {parent.pid} {parent.create_time()}"


def _listed(numbers: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in numbers.items())
