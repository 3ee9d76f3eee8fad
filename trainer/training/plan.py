"""The values of a run that follow from its settings, its shards and this machine. Nothing is checked here."""

from dataclasses import dataclass, replace
from itertools import count

import torch

from srshards.loader.prefetch import PrefetchWindow
from srshards.loader.resident import drawing_bytes, resident_bytes
from srshards.process.resources import available_cpus
from srshards.sampling.chunks import Chunks, Rows
from srshards.sampling.patches import PatchGrid
from srshards.sampling.schedule import Schedule
from srshards.shards.folder import Shards
from trainer.distributed.rank import SINGLE_PROCESS, RankInfo
from trainer.models import NetworkSpec, network_spec
from trainer.training.config import DEFAULT_LR, TrainConfig
from trainer.training.device import Precision, choose_device, choose_precision

_MIN_VAL_EVERY, _MAX_VAL_EVERY = 200, 5000
_MIN_WARMUP, _MAX_WARMUP = 50, 500
_MAX_LOG_EVERY = 50
_PATCHES_PER_DECODED_SAMPLE = 4


@dataclass(frozen=True)
class Plan:
    """A run as it will be on this rank. `rows` are those of this rank; `config.ranks` is what the settings are for."""

    config: TrainConfig
    rank_info: RankInfo
    folder: Shards
    spec: NetworkSpec
    grid: PatchGrid
    rows: Rows
    schedule: Schedule
    device: torch.device
    precision: Precision
    workers: int

    @property
    def total_steps(self) -> int:
        return self.config.steps or self.schedule.num_steps(self.config.epochs)

    @property
    def samples_left_out(self) -> int:
        """At the very end of the last epoch; those of the other epochs begin the next one."""
        if self.config.steps is not None:
            return 0
        return self.schedule.samples_left_out(self.config.epochs)

    @property
    def val_every(self) -> int:
        steps_per_epoch = max(1, self.schedule.num_samples // self.rows.global_batch)
        return self.config.val_every or min(max(steps_per_epoch, _MIN_VAL_EVERY), _MAX_VAL_EVERY)

    @property
    def log_every(self) -> int:
        return max(1, min(_MAX_LOG_EVERY, self.total_steps // 20))

    @property
    def lr(self) -> float:
        return self.config.lr or DEFAULT_LR[self.config.model]

    @property
    def warmup(self) -> int:
        given = self.config.warmup
        if given is not None:
            return given
        # At the peak rates of the small networks a steeper start can break them for good.
        return min(_MAX_WARMUP, max(_MIN_WARMUP, self.total_steps // 20), self.total_steps // 2)

    @property
    def chunks(self) -> Chunks:
        """The batches that a worker hands over at a time."""
        times = self.schedule.patches_per_sample
        return Chunks.of(self.rows, self.grid, self.folder.codec, times, self.config.prefetch)

    @property
    def shared_bytes(self) -> int:
        """Memory that is shared with the workers."""
        return 0 if self.config.resident else self.chunks.num_slots(self.workers) * self.chunks.num_bytes

    @property
    def batch_bytes(self) -> int:
        """Memory of this machine that making batches takes on this rank."""
        return drawing_bytes(self.rows) if self.config.resident else self.shared_bytes

    @property
    def resident_bytes(self) -> int:
        """Memory of the device that holding all samples takes."""
        num_inputs = len(self.folder.inputs(self.config.input))
        return resident_bytes(self.grid, self.schedule.num_samples, num_inputs)

    @property
    def upcoming_shards(self) -> PrefetchWindow:
        """The shards that a cache has to have soon."""
        steps = self.chunks.size * self.chunks.num_slots(self.workers)
        return PrefetchWindow(self.schedule, self.folder.train.records, steps, self.total_steps)


def derive_plan(
    config: TrainConfig, folder: Shards, rank_info: RankInfo = SINGLE_PROCESS, block_bytes: int | None = None
) -> Plan:
    """The plan of settings that `check_settings` accepts. `block_bytes` are those of the schedule.

    UsageError for a device or a precision that this machine does not have.
    """
    config = replace(config, ranks=config.ranks or rank_info.world_size)
    input_scale = folder.scale if config.input == "lr" else 1
    device = choose_device(config.device, rank_info.local_rank if rank_info.world_size > 1 else None)
    rows = _rows(config, rank_info)
    return Plan(
        config=config,
        rank_info=rank_info,
        folder=folder,
        spec=network_spec(config.model, input_scale),
        grid=PatchGrid(folder.hr_size, folder.scale, config.patch_size, input_scale),
        rows=rows,
        schedule=_schedule(config, folder, rows, block_bytes),
        device=device,
        precision=choose_precision(config.amp, device),
        workers=rank_info.share(available_cpus()) if config.workers is None else config.workers,
    )


def patches_per_step(config: TrainConfig, rank_info: RankInfo) -> int:
    """Patches of a step, of all ranks: the same for any number of ranks once `config.ranks` is set."""
    return config.batch_size * config.grad_accum * (config.ranks or rank_info.world_size)


def _rows(config: TrainConfig, rank_info: RankInfo) -> Rows:
    """This rank's part of a step, in equal micro-batches that are no larger than `config.batch_size`."""
    own = patches_per_step(config, rank_info) // rank_info.world_size
    parts = next(parts for parts in count(-(-own // config.batch_size)) if own % parts == 0)
    return Rows(own // parts, parts, rank_info.rank, rank_info.world_size)


def _schedule(config: TrainConfig, folder: Shards, rows: Rows, block_bytes: int | None) -> Schedule:
    return Schedule(
        [record.samples for record in folder.train.records],
        [folder.num_bytes(record) for record in folder.train.records],
        config.seed,
        rows.global_batch,
        _patches_per_sample(config, folder.codec),
        block_bytes,
    )


def _patches_per_sample(config: TrainConfig, codec: str) -> int:
    """As configured; by default up to 4 where samples have to be decoded, as many as divide the epochs."""
    if config.patches_per_sample is not None:
        return config.patches_per_sample
    most = 1 if codec == "npy" else _PATCHES_PER_DECODED_SAMPLE
    return next(k for k in range(most, 0, -1) if config.steps is not None or config.epochs % k == 0)
