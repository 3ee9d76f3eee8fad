"""The group of ranks that train together, and its collective operations on small values.

torchrun started the ranks and starts them all again when one of them dies. A single process is a group of one: every
operation then returns what it was given, and no connection is opened.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from srshards.errors import ReportedError, RunError
from srshards.process.shortages import reason_of
from srshards.storage.store import StoreError
from trainer.distributed.rank import SINGLE_PROCESS, RankInfo, ReportedByRank0
from trainer.distributed.rendezvous import join_attempt

T = TypeVar("T")
Failure: TypeAlias = ReportedError | StoreError | OSError

_TIMEOUT = timedelta(minutes=30)  # one rank's longest work between two collectives: verifying, a save, compiling
_GROUP_ERRORS = ("gloo", "nccl", "processgroup", "connection closed by peer", "connection reset by peer")


class RankGroup:
    """All ranks. Every operation is collective: each rank has to call it, in the same order.

    RunError when another rank is gone, or has not answered for half an hour.
    """

    def __init__(
        self, rank_info: RankInfo, process_group: dist.ProcessGroup | None = None, restarted: bool = False
    ) -> None:
        self.rank_info = rank_info
        self._process_group = process_group
        self.restarted = self.any_of(restarted)  # by torchrun, after a process had died

    @property
    def world_size(self) -> int:
        return self.rank_info.world_size

    @property
    def is_rank0(self) -> bool:
        return self.rank_info.is_rank0

    def max(self, values: Sequence[float]) -> list[float]:
        """The largest of all ranks' values, elementwise."""
        return self._all_reduce(values, dist.ReduceOp.MAX)

    def sum(self, values: Sequence[float]) -> list[float]:
        """The float64 sums of all ranks' values, elementwise."""
        return self._all_reduce(values, dist.ReduceOp.SUM)

    def any_of(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return self.max([flag])[0] > 0

    def all_gather(self, value: T) -> list[T]:
        """Every rank's value, by rank, on all of them."""
        if self._process_group is None:
            return [value]
        values: list[Any] = [None] * self.world_size
        with self.explain_lost_ranks():
            dist.all_gather_object(values, value, group=self._process_group)
        return values

    def run_on_all(self, work: Callable[[], T]) -> T:
        """This rank's result of `work`, once all have theirs. A failure on any ends all, and rank 0 says why."""
        if self._process_group is None:
            return work()
        failure: Failure | None = None
        try:
            result = work()
        except (ReportedError, StoreError, OSError) as error:
            failure = error
        failures = self.all_gather(failure)
        for rank, failed in enumerate(failures):
            if failed is not None:
                raise self.report_once(failed if rank == 0 else _of_rank(rank, failed)) from failure
        return result

    def run_on_rank0(self, work: Callable[[], T]) -> T:
        """The result of `work` on rank 0, broadcast to all. Other machines need not see the files that it reads."""
        value: list[Any] = [self.run_on_all(lambda: work() if self.is_rank0 else None)]
        if self._process_group is not None:
            with self.explain_lost_ranks():
                dist.broadcast_object_list(value, src=0, group=self._process_group)
        return value[0]  # type: ignore[no-any-return]

    def report_once(self, error: Failure) -> Failure:
        """The exception to raise for an error that all ranks run into together: rank 0 alone has its message."""
        return error if self.is_rank0 else ReportedByRank0(getattr(error, "exit_code", 1))

    def wrap_ddp(self, network: nn.Module, device: torch.device) -> DistributedDataParallel | None:
        """The network as all ranks train it, beginning with rank 0's weights; None for a single process.

        Gradients travel by NCCL between CUDA devices, by gloo between CPUs.
        """
        if self._process_group is None:
            return None
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)  # code that names no device would make itself at home on the first one
        with self.explain_lost_ranks():
            return DistributedDataParallel(
                network,
                device_ids=[device.index] if on_gpu else None,
                process_group=dist.new_group(backend="nccl" if on_gpu else "gloo", timeout=_TIMEOUT),
                gradient_as_bucket_view=True,
            )

    @contextmanager
    def explain_lost_ranks(self) -> Iterator[None]:
        """Translate PyTorch's exceptions for a lost rank into a RunError."""
        try:
            yield
        except RuntimeError as error:
            is_of_group = isinstance(error, dist.DistError) or any(w in str(error).lower() for w in _GROUP_ERRORS)
            if self._process_group is None or not is_of_group:
                raise
            raise RunError(
                f"the other processes of this training are out of reach ({_first_line(error)}); the one that ended "
                "first says why"
            ) from error

    def _all_reduce(self, values: Sequence[float], by: Any) -> list[float]:
        if self._process_group is None:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        with self.explain_lost_ranks():
            dist.all_reduce(tensor, by, group=self._process_group)
        found: list[float] = tensor.tolist()
        return found


SINGLE_PROCESS_GROUP = RankGroup(SINGLE_PROCESS)


@contextmanager
def open_group(rank_info: RankInfo) -> Iterator[RankGroup]:
    """The group of all ranks while the block runs. RunError when the rendezvous takes too long."""
    if rank_info.world_size == 1:
        yield RankGroup(rank_info, restarted=rank_info.restarts > 0)
        return
    attempt = join_attempt(rank_info)
    dist.init_process_group(
        "gloo", store=attempt.store, rank=rank_info.rank, world_size=rank_info.world_size, timeout=_TIMEOUT
    )
    # Small values have a group of their own: they must not wait for gradients.
    process_group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    yield RankGroup(rank_info, process_group, attempt.restarted)
    dist.destroy_process_group()  # not after an error: what is under way on a GPU may never end


def _of_rank(rank: int, error: Failure) -> Failure:
    if isinstance(error, ReportedError | StoreError):
        return type(error)(f"rank {rank}: {error}")
    return RunError(f"rank {rank}: {reason_of(error)}")


def _first_line(error: Exception) -> str:
    """What an error says, without the location in PyTorch's source and the advice to look at logs."""
    said = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\[[^\]]*\.cc:\d+\] ", "", said[0]).split(". This is")[0]
