"""A training run from its settings to its weights."""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch

from srshards.errors import RunError, UsageError
from trainer.distributed.group import SINGLE_PROCESS_GROUP, RankGroup
from trainer.messages import with_options
from trainer.models import Network, num_parameters
from trainer.models.weights import load_into, save_weights
from trainer.runs.checkpoint import TrainingProgress, explained, load_state
from trainer.runs.folder import RunFolder
from trainer.training.describe import describe, less_memory_advice
from trainer.training.device import describe_device, limit_threads
from trainer.training.learner import Learner, StepSettings
from trainer.training.loop import LoopSettings, TrainingLoop
from trainer.training.losses import LOSSES
from trainer.training.plan import Plan
from trainer.training.record import Record, recorded
from trainer.training.stopping import StopRequest
from trainer.training.validation import Validation, ValidationResult


@dataclass(frozen=True)
class TrainingResult:
    """How the run in a folder ended. `last` is None when nothing was validated since it began or went on.

    The patches of a step are those of all ranks, the memory is that of the one that took most. With `had_finished`, the
    run was finished before, and nothing was trained.
    """

    run: RunFolder
    finished: bool
    progress: TrainingProgress
    last: ValidationResult | None
    patches_per_step: int
    peak_memory_bytes: int
    had_finished: bool = False


def train(
    plan: Plan,
    folder: AbstractContextManager[RunFolder],
    stop: StopRequest,
    say: Callable[[str], None],
    group: RankGroup = SINGLE_PROCESS_GROUP,
) -> TrainingResult:
    """Train, from the beginning or from the state in the folder if there is one; rank 0 alone enters the folder.

    `say` is told what the run is about to do, on that rank.
    """
    limit_threads(plan.rank_info.local_world_size)
    torch.backends.cudnn.benchmark = True  # all batches have one shape: its fastest kernels are worth a search
    learner = make_learner(plan, group)
    with ExitStack() as stack:
        run = group.run_on_rank0(lambda: stack.enter_context(folder))
        progress = _progress(plan, run, learner, group)
        if progress.validated and progress.step == plan.total_steps:
            group.run_on_rank0(lambda: _restore_weights(run, learner))
            return TrainingResult(run, True, progress, None, plan.loader.patches_per_step, 0, had_finished=True)
        record = group.run_on_all(
            lambda: stack.enter_context(_record(plan, run, progress, say)) if group.is_rank0 else Record()
        )
        return _train(plan, run, learner, progress, record, stop, group)


def _progress(plan: Plan, run: RunFolder, learner: Learner, group: RankGroup) -> TrainingProgress:
    """How far the run is, and the learner as it was then."""
    data = plan.folder.fingerprint()

    def load() -> tuple[TrainingProgress, dict[str, Any]] | None:
        if run.has_lost_its_state():
            raise UsageError(
                f"{run.home} has weights, but no {run.state.name} from which they could go on; begin a new run, e.g. "
                f"with --init {run.weights}"
            )
        return load_state(run.state, data) if run.state.exists() else None

    found = group.run_on_rank0(load)
    if found is None:
        return TrainingProgress()
    progress, state = found
    if progress.step > plan.total_steps:
        raise UsageError(
            f"{run.state} is that of step {progress.step:,}, and the run ends after {plan.total_steps:,}: put `steps` "
            f"in {run.config} back to what it was"
        )
    with explained(run.state):
        learner.restore(state)
    return progress


def _restore_weights(run: RunFolder, learner: Learner) -> None:
    """Write the weights of a finished run if they are missing, or older than its state."""
    if run.lacks_its_weights():
        save_weights(run.weights, *learner.weights())


@contextmanager
def _record(plan: Plan, run: RunFolder, progress: TrainingProgress, say: Callable[[str], None]) -> Iterator[Record]:
    """The run's record, once what it is about to do is said and written down."""
    going_on = f", going on at step {progress.step:,}" if progress.step else ""
    say(f"{describe(plan)}\nRun      {run.home}{going_on}")
    if plan.rank_info.job is not None:
        run.write_job(plan.rank_info.job)
    run.write_config(plan.config.as_yaml())
    run.write_plan(_facts(plan))
    run.publish()  # a store that cannot be written to is no place for a run
    with recorded(run, plan.folder.fingerprint(), progress.step, plan.total_steps) as record:
        yield record


def _facts(plan: Plan) -> dict[str, int | str]:
    """What the settings come to on this machine."""
    return {
        "steps": plan.total_steps,
        "patches_per_step": plan.loader.patches_per_step,
        "scale": plan.folder.scale,
        "parameters": num_parameters(plan.spec.build()),
        "device": describe_device(plan.device),
        "precision": str(plan.precision),
    }


def _train(
    plan: Plan,
    run: RunFolder,
    learner: Learner,
    progress: TrainingProgress,
    record: Record,
    stop: StopRequest,
    group: RankGroup,
) -> TrainingResult:
    settings = LoopSettings(
        total_steps=plan.total_steps,
        val_every=plan.val_every,
        log_every=plan.log_every,
        save_every=plan.config.save_every,
        patches=plan.loader.patches_per_step,
        num_samples=plan.loader.num_samples,
        origin=plan.folder.origin,
        less_memory=less_memory_advice(plan),
        compiled=plan.config.compile,
    )
    loop = TrainingLoop(settings, learner, plan.loader, _validation(plan, group), progress, record, group)
    try:
        with plan.loader:
            loop.run(stop)
    except RunError as error:
        with suppress(RunError):  # of a disk that is full, which is the error itself
            record.note("error", progress.step, message=with_options(str(error)))
        raise
    (peak_memory_bytes,) = group.max([_peak_memory_bytes(plan.device)])
    return TrainingResult(
        run=run,
        finished=progress.step == plan.total_steps and progress.validated,
        progress=progress,
        last=loop.last_validation,
        patches_per_step=plan.loader.patches_per_step,
        peak_memory_bytes=int(peak_memory_bytes),
    )


def make_learner(plan: Plan, group: RankGroup = SINGLE_PROCESS_GROUP) -> Learner:
    """The network as it is drawn from the seed or found in `--init` by rank 0, ready for its first step."""
    config, spec = plan.config, plan.spec
    network, ema_network = (_channels_last(spec.build(config.seed).to(plan.device)) for _ in range(2))
    settings = StepSettings(
        total_steps=plan.total_steps,
        lr=plan.lr,
        warmup=plan.warmup,
        loss=LOSSES[config.loss],
        precision=plan.precision,
        micro_batches=plan.loader.micro_batches,
        clip=config.clip,
        ema=config.ema,
    )
    init = config.init
    if init is not None:
        group.run_on_rank0(lambda: load_into(network, init))
    ddp = group.wrap_ddp(network, plan.device)
    ema_network.load_state_dict(network.state_dict())
    trained = ddp or network
    # Compiled on the outside, where PyTorch cuts the graph so that gradients travel while others are computed.
    forward: Callable[[torch.Tensor], torch.Tensor] = torch.compile(trained) if config.compile else trained
    no_sync = ddp.no_sync if ddp else nullcontext
    return Learner(network, ema_network if config.ema else None, settings, forward, no_sync)


def _channels_last(network: Network) -> Network:
    """Batches arrive as N x H x W x 3; convolutions are fastest when their weights have that layout too."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _validation(plan: Plan, group: RankGroup) -> Validation | None:
    if not plan.folder.val:
        return None
    return Validation(plan.folder, plan.config.input == "up", plan.config.val_samples, group)


def _peak_memory_bytes(device: torch.device) -> int:
    """Of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
