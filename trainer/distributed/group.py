"""The processes that train together: which of them this one is, and the few words that they exchange.

Each is a rank of a group that torchrun started and will start again when one of them dies. One process alone is a world
too: everything here then gives back what it was given, and nothing is opened.
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
from srshards.process.limits import reason_of
from srshards.storage.store import StoreError
from trainer.distributed.rank import ONE_PROCESS, Place, ReportedByRank0
from trainer.distributed.rendezvous import meet

T = TypeVar("T")
Failure: TypeAlias = ReportedError | StoreError | OSError

_TO_ANSWER = timedelta(minutes=30)  # one rank's longest work between two words: verifying, a save, compiling
_OF_THE_GROUP = ("gloo", "nccl", "processgroup", "connection closed by peer", "connection reset by peer")


class World:
    """The group of all ranks. Whatever is asked here, every rank has to ask, in the same order.

    RunError when another rank is gone, or has not answered for half an hour.
    """

    def __init__(self, place: Place, group: dist.ProcessGroup | None = None, again: bool = False) -> None:
        self.place = place
        self._group = group
        self.restarted = self.any_of(again)  # by torchrun, after a process had died

    @property
    def ranks(self) -> int:
        return self.place.ranks

    @property
    def leads(self) -> bool:
        return self.place.leads

    def max(self, values: Sequence[float]) -> list[float]:
        """The largest of all ranks' values, place by place."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def sum(self, values: Sequence[float]) -> list[float]:
        """The float64 sums of all ranks' values, place by place."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def any_of(self, flag: bool) -> bool:
        """Whether it is so on any rank."""
        return self.max([flag])[0] > 0

    def gather(self, value: T) -> list[T]:
        """Every rank's value, by rank, on all of them."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self.ranks
        with self.explained():
            dist.all_gather_object(values, value, group=self._group)
        return values

    def together(self, work: Callable[[], T]) -> T:
        """What `work` gives this rank, once it is done on all. A failure on any ends all, and rank 0 says why."""
        if self._group is None:
            return work()
        failure: Failure | None = None
        try:
            result = work()
        except (ReportedError, StoreError, OSError) as error:
            failure = error
        failures = self.gather(failure)
        for rank, failed in enumerate(failures):
            if failed is not None:
                raise self.same(failed if rank == 0 else _of_rank(rank, failed)) from failure
        return result

    def led(self, work: Callable[[], T]) -> T:
        """What `work` gives rank 0, who alone does it. Other machines need not see the files that it reads."""
        value: list[Any] = [self.together(lambda: work() if self.leads else None)]
        if self._group is not None:
            with self.explained():
                dist.broadcast_object_list(value, src=0, group=self._group)
        return value[0]  # type: ignore[no-any-return]

    def same(self, error: Failure) -> Failure:
        """What to raise for an error that all ranks run into at the same time: one message of it is enough."""
        return error if self.leads else ReportedByRank0(getattr(error, "exit_code", 1))

    def shared(self, network: nn.Module, device: torch.device) -> DistributedDataParallel | None:
        """The network as all ranks train it together, beginning with rank 0's weights; None for one process alone.

        Gradients travel by NCCL between CUDA devices, by gloo between CPUs.
        """
        if self._group is None:
            return None
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)  # whatever names no device would make itself at home on the first one
        with self.explained():
            return DistributedDataParallel(
                network,
                device_ids=[device.index] if on_gpu else None,
                process_group=dist.new_group(backend="nccl" if on_gpu else "gloo", timeout=_TO_ANSWER),
                gradient_as_bucket_view=True,
            )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """A RunError in place of whatever PyTorch raises for a rank that is gone."""
        try:
            yield
        except RuntimeError as error:
            is_of_group = isinstance(error, dist.DistError) or any(w in str(error).lower() for w in _OF_THE_GROUP)
            if self._group is None or not is_of_group:
                raise
            raise RunError(
                f"the other processes of this training are out of reach ({_first_line(error)}); the one that ended "
                "first says why"
            ) from error

    def _reduced(self, values: Sequence[float], by: Any) -> list[float]:
        if self._group is None:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        with self.explained():
            dist.all_reduce(tensor, by, group=self._group)
        found: list[float] = tensor.tolist()
        return found


ALONE = World(ONE_PROCESS)


@contextmanager
def open_world(place: Place) -> Iterator[World]:
    """The group of all ranks while the block runs. RunError when they do not come together in time."""
    if place.ranks == 1:
        yield World(place, again=place.restarts > 0)
        return
    meeting = meet(place)
    dist.init_process_group("gloo", store=meeting.store, rank=place.rank, world_size=place.ranks, timeout=_TO_ANSWER)
    # Words have a group of their own: they must not wait for gradients.
    group = dist.new_group(backend="gloo", timeout=_TO_ANSWER)
    yield World(place, group, meeting.again)
    dist.destroy_process_group()  # not after an error: what is under way on a GPU may never end


def _of_rank(rank: int, error: Failure) -> Failure:
    if isinstance(error, ReportedError | StoreError):
        return type(error)(f"rank {rank}: {error}")
    return RunError(f"rank {rank}: {reason_of(error)}")


def _first_line(error: Exception) -> str:
    """What an error says, without the place in PyTorch's source and the advice to look at logs."""
    said = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\[[^\]]*\.cc:\d+\] ", "", said[0]).split(". This is")[0]
