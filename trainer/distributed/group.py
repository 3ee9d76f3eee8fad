"""The process group of a training, and its collective operations on small values.

torchrun starts the ranks, and restarts all of them when one dies. A single process is a group of one: its collectives
return their input and open no connection.
"""

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from srshards.errors import ReportedError, RunError, UsageError
from srshards.process.shortages import reason_of
from srshards.storage.store import StoreError
from trainer.distributed.rank import SINGLE_PROCESS, RankInfo, ReportedByRank0
from trainer.distributed.rendezvous import join_attempt

T = TypeVar("T")
Failure: TypeAlias = ReportedError | StoreError | OSError

_TIMEOUT = timedelta(minutes=30)  # bounds what one rank does while others wait: verification, a save, compilation
_STEP_TIMEOUT = timedelta(minutes=10)  # within a step, ranks differ by a wait for data; a silent store ends it after 4
# At its time-out, NCCL's watchdog aborts the process, so the collectives of this module must time out before.
_NCCL_MARGIN = timedelta(minutes=2)
_GROUP_ERRORS = ("gloo", "nccl", "processgroup", "connection closed", "connection reset", "operation timed out")


class RankGroup:
    """The ranks of a training. Every method is collective: all ranks must call the same ones in the same order.

    RunError if another rank has died or has not responded in time: within ten minutes where ranks only wait for each
    other's step, within half an hour elsewhere.
    """

    def __init__(
        self, rank_info: RankInfo, process_group: dist.ProcessGroup | None = None, restarted: bool = False
    ) -> None:
        self.rank_info = rank_info
        self._process_group = process_group
        self._step_timeout = _STEP_TIMEOUT
        self._gradient_group: dist.ProcessGroup | None = None
        self._nccl_group: dist.ProcessGroup | None = None  # the same, on GPUs
        self.restarted = self.any_of(restarted)  # whether torchrun restarted the ranks after one died

    @property
    def world_size(self) -> int:
        return self.rank_info.world_size

    @property
    def is_rank0(self) -> bool:
        return self.rank_info.is_rank0

    def max(self, values: Sequence[float]) -> list[float]:
        """Return the elementwise maximum over all ranks."""
        return self._start_all_reduce(values, dist.ReduceOp.MAX, _TIMEOUT)()

    def start_max(self, values: Sequence[float]) -> Callable[[], list[float]]:
        """Start to compute `max`. Return a function that waits for the result, to be called once on every rank.

        All ranks must call it at about the same time: the time-out is that of a step.
        """
        return self._start_all_reduce(values, dist.ReduceOp.MAX, self._step_timeout)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the elementwise float64 sum over all ranks, which must call it at about the same time."""
        return self._start_all_reduce(values, dist.ReduceOp.SUM, self._step_timeout)()

    def any_of(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank."""
        return self.max([flag])[0] > 0

    def all_gather(self, value: T) -> list[T]:
        """Return the values of all ranks, ordered by rank."""
        if self._process_group is None:
            return [value]
        values: list[Any] = [None] * self.world_size
        with self.explain_lost_ranks():
            dist.all_gather_object(values, value, group=self._process_group)
        return values

    def run_on_all(self, work: Callable[[], T]) -> T:
        """Run `work` on every rank and return this rank's result. A failure of any rank is raised on all of them."""
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
                raise self.report_once(failed if rank == 0 else _with_rank(rank, failed)) from failure
        return result

    def run_on_rank0(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 and broadcast its result, so that other machines need no access to its files."""
        value: list[Any] = [self.run_on_all(lambda: work() if self.is_rank0 else None)]
        if self._process_group is not None:
            with self.explain_lost_ranks():
                dist.broadcast_object_list(value, src=0, group=self._process_group)
        return value[0]  # type: ignore[no-any-return]

    def report_once(self, error: Failure) -> Failure:
        """Return the exception to raise for an error that occurs on all ranks: only rank 0's has the message."""
        return error if self.is_rank0 else ReportedByRank0(getattr(error, "exit_code", 1))

    def wrap_ddp(
        self, network: nn.Module, device: torch.device, compiles: bool = False
    ) -> DistributedDataParallel | None:
        """Return the DDP-wrapped network with rank 0's weights, or None for a single process.

        Gradients are reduced by NCCL on CUDA devices and by gloo on CPUs, those of several networks by one group. All
        ranks must use their wrapped networks in the same order. `compiles`: the network is compiled in the first step,
        for which ranks may need very different times. UsageError if two ranks use the same GPU.
        """
        if self._process_group is None:
            return None
        if compiles:
            self._step_timeout = _TIMEOUT
        on_gpu = device.type == "cuda"
        if on_gpu:
            self._refuse_shared_gpus(device)
        with self.explain_lost_ranks():
            group = self._gradient_group or dist.new_group(
                backend="nccl" if on_gpu else "gloo",
                timeout=self._step_timeout + _NCCL_MARGIN if on_gpu else self._step_timeout,
            )
            self._gradient_group, self._nccl_group = group, group if on_gpu else None
            return DistributedDataParallel(
                network,
                device_ids=[device.index] if on_gpu else None,
                process_group=group,
                gradient_as_bucket_view=True,
            )

    @contextmanager
    def explain_lost_ranks(self) -> Iterator[None]:
        """Translate PyTorch's exceptions for a lost rank to RunError."""
        try:
            yield
        except RuntimeError as error:
            text = str(error).lower()
            is_of_group = isinstance(error, dist.DistError) or any(word in text for word in _GROUP_ERRORS)
            if self._process_group is None or not is_of_group:
                raise
            self._abort_nccl()
            if "timed out" in text or "timeout" in text:
                what = f"rank {self.rank_info.rank} timed out waiting for another process of this training"
                advice = "one of the others hangs: check their machines, then resume the run"
            else:
                what = "lost connection to the other processes of this training"
                advice = "see the error of the process that exited first"
            raise RunError(f"{what} ({_first_line(error)}); {advice}") from error

    def _start_all_reduce(self, values: Sequence[float], by: Any, timeout: timedelta) -> Callable[[], list[float]]:
        group = self._process_group
        if group is None:
            return lambda: list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        with self.explain_lost_ranks():
            work = dist.all_reduce(tensor, by, group=group, async_op=True)

        def result() -> list[float]:
            with self.explain_lost_ranks():
                work.wait(timeout)
            reduced: list[float] = tensor.tolist()
            return reduced

        return result

    def _refuse_shared_gpus(self, device: torch.device) -> None:
        """Raise UsageError on all ranks if two of them use the same GPU, which NCCL refuses less clearly."""
        gpu = (socket.gethostname(), str(torch.cuda.get_device_properties(device).uuid))
        ranks_by_gpu: dict[tuple[str, str], list[int]] = {}
        for rank, other in enumerate(self.all_gather(gpu)):
            ranks_by_gpu.setdefault(other, []).append(rank)
        shared = {gpu: ranks for gpu, ranks in ranks_by_gpu.items() if len(ranks) > 1}
        if shared:
            (host, uuid), ranks = next(iter(shared.items()))
            raise self.report_once(
                UsageError(
                    f"ranks {', '.join(map(str, ranks))} use the same GPU ({uuid} on {host}); start one process per "
                    "GPU (--nproc-per-node of torchrun), and if CUDA_VISIBLE_DEVICES is set, give each process its own "
                    "GPU or let all of them see all GPUs"
                )
            )

    def _abort_nccl(self) -> None:
        """End NCCL's kernels, which would otherwise wait for the lost rank, and with them any access to the GPU."""
        if self._nccl_group is not None:
            with suppress(RuntimeError):  # the error that made this necessary is reported
                self._nccl_group._get_backend(torch.device("cuda")).abort()


SINGLE_PROCESS_GROUP = RankGroup(SINGLE_PROCESS)


@contextmanager
def open_group(rank_info: RankInfo) -> Iterator[RankGroup]:
    """Join the group of all ranks for the duration of the block. RunError if the rendezvous times out."""
    if rank_info.world_size == 1:
        yield RankGroup(rank_info, restarted=rank_info.restarts > 0)
        return
    attempt = join_attempt(rank_info)
    dist.init_process_group(
        "gloo", store=attempt.store, rank=rank_info.rank, world_size=rank_info.world_size, timeout=_TIMEOUT
    )
    # A separate group for small values, so that they do not queue behind gradients.
    process_group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    yield RankGroup(rank_info, process_group, attempt.restarted)
    dist.destroy_process_group()  # not after an error: it would wait for GPU work that may never finish


def _with_rank(rank: int, error: Failure) -> Failure:
    if isinstance(error, ReportedError | StoreError):
        return type(error)(f"rank {rank}: {error}")
    return RunError(f"rank {rank}: {reason_of(error)}")


def _first_line(error: Exception) -> str:
    """Return the first line of a message, without its PyTorch source location and the advice to check logs."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\[[^\]]*\.cc:\d+\] ", "", lines[0]).split(". This is")[0]
