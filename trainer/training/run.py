"""A complete training run: set up or resume, train, save."""

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from time import monotonic
from typing import Any, TypeVar

import torch
from torch import nn

from srshards.errors import RunError, UsageError
from srshards.process.allocator import keep_freed_memory
from srshards.process.resources import available_memory_bytes
from trainer.distributed.group import SINGLE_PROCESS_GROUP, RankGroup
from trainer.evaluation.best import BestBy, parse_best
from trainer.evaluation.checks import check_photos
from trainer.evaluation.perceptual import load_metrics
from trainer.loss_terms import LossTerm
from trainer.losses.adversarial import ADVERSARIAL_LOSSES
from trainer.messages import with_options
from trainer.metrics_table import PERCEPTUAL
from trainer.models import num_parameters
from trainer.models.discriminators import build_discriminator, load_discriminator
from trainer.models.weights import save_weights
from trainer.runs.checkpoint import TrainingProgress, load_state, state_errors
from trainer.runs.folder import RunFolder
from trainer.training.account import Account
from trainer.training.adversary import Adversary, AdversarySettings
from trainer.training.config import SCHEDULE_FREE
from trainer.training.describe import describe, few_steps, memory_advice
from trainer.training.device import describe_device, limit_threads, make_current
from trainer.training.device_queue import DeviceQueue
from trainer.training.learner import Learner, StepSettings
from trainer.training.loop import LoopSettings, TrainingLoop
from trainer.training.network import initial_weights
from trainer.training.objective import AdversarialTerm, Objective
from trainer.training.plan import Plan
from trainer.training.record import Record, open_record
from trainer.training.schedule import decay_of, milestone_steps
from trainer.training.sets import best_images, measured
from trainer.training.sharpen import Sharpen
from trainer.training.stopping import StopRequest
from trainer.training.validation import Validation, ValidationResult

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)

_PHOTOS_SHARE = 1 / 8  # of the free memory, for the photos of validation sets and their LR


@dataclass(frozen=True)
class TrainingResult:
    """Outcome of a run. `last` is the last validation, None if there was none since the run started or resumed.

    `patches_per_step` is the total of all ranks, `peak_memory_bytes` their maximum. With `was_finished`, the run had
    finished before, nothing was trained, and there is no `account`.
    """

    run: RunFolder
    finished: bool
    progress: TrainingProgress
    last: ValidationResult | None
    patches_per_step: int
    peak_memory_bytes: int
    account: Account | None
    was_finished: bool = False


def train(
    plan: Plan,
    folder: AbstractContextManager[RunFolder],
    stop: StopRequest,
    say: Callable[[str], None],
    group: RankGroup = SINGLE_PROCESS_GROUP,
    start_s: float | None = None,
) -> TrainingResult:
    """Train from scratch, or from the state in the folder if there is one. Only rank 0 accesses the folder.

    On rank 0, the description of the run is passed to `say`. `start_s` is the reading of `time.monotonic` at the start
    of the command; None: now.
    """
    start_s = monotonic() if start_s is None else start_s
    limit_threads(plan.rank_info.local_world_size)
    torch.backends.cudnn.benchmark = True  # all batches have the same shape, so autotuning pays off
    make_current(plan.device)
    if plan.device.type == "cpu":
        keep_freed_memory()
    learner = make_learner(plan, group)
    with ExitStack() as stack:
        run = group.run_on_rank0(lambda: stack.enter_context(folder))
        progress = _progress(plan, run, learner, group)
        if progress.validated and progress.step == plan.total_steps:
            group.run_on_rank0(lambda: _restore_weights(run, learner))
            return TrainingResult(run, True, progress, None, plan.loader.patches_per_step, 0, None, was_finished=True)
        validation = group.run_on_all(lambda: _validation(plan, group))
        images = group.run_on_rank0(lambda: best_images(plan.sets, plan.best_by))
        notes = _forget_incomparable_best(progress, plan.best_by, images)
        record = group.run_on_all(
            lambda: stack.enter_context(_record(plan, run, progress, say, notes)) if group.is_rank0 else Record()
        )
        queue = DeviceQueue(plan.device)
        account = Account(progress.account, start_s, queue.is_busy)
        return _train(plan, run, learner, validation, progress, record, stop, account, queue, group)


def _progress(plan: Plan, run: RunFolder, learner: Learner, group: RankGroup) -> TrainingProgress:
    """Restore the learner from the run's state and return the run's progress. Without a state, load initial weights.

    A resumed run thus does not need the files of `--init` and `--discriminator-init`.
    """
    data = plan.folder.fingerprint()

    def load() -> tuple[TrainingProgress, dict[str, Any]] | None:
        if run.is_missing_state():
            raise UsageError(
                f"{run.home} has weights, but no {run.state.name} to resume from; start a new run, e.g. "
                f"with --init {run.weights}"
            )
        return load_state(run.state, data) if run.state.exists() else None

    found = group.run_on_rank0(load)
    if found is None:
        init = plan.config.init
        if init is not None:
            learner.start_from(group.run_on_rank0(lambda: initial_weights(init, plan.spec)))
        name, discriminator_init = plan.discriminator, plan.config.discriminator_init
        if learner.adversary and discriminator_init is not None:
            params = group.run_on_rank0(lambda: load_discriminator(name, discriminator_init).state_dict())
            learner.adversary.network.load_state_dict(params)
        return TrainingProgress()
    progress, state = found
    if progress.step > plan.total_steps:
        raise UsageError(
            f"{run.state} is from step {progress.step:,}, but the run ends after step {plan.total_steps:,}; restore "
            f"the value of `steps` in {run.config}"
        )
    with state_errors(run.state):
        if any(len(losses) != len(learner.columns) for losses in progress.losses):
            raise ValueError(f"expected the values of {', '.join(learner.columns)}")
        learner.restore(state)
    return progress


def _forget_incomparable_best(progress: TrainingProgress, best_by: BestBy | None, images: str) -> list[str]:
    """Let `best.pth` start anew if it was chosen by something else, or on other images. Return a line that says so."""
    former = progress.best_by, progress.best_images
    if best_by is None or former == (str(best_by), images):
        return []
    lines = []
    if progress.best is not None:
        before = parse_best(progress.best_by)
        is_same = progress.best_by == str(best_by)
        change = f"the images of {before.set} have changed" if is_same else f"it is now chosen by {best_by.name}"
        lines.append(
            f"Note     best.pth has the weights of step {progress.best_step:,} ({before.described(progress.best)}); "
            f"{change}, so the next validation replaces it"
        )
    progress.best, progress.best_step = None, 0
    progress.best_by, progress.best_images = str(best_by), images
    return lines


def _restore_weights(run: RunFolder, learner: Learner) -> None:
    """Write the weights of a finished run that are missing or older than its state."""
    if run.is_missing(run.weights):
        save_weights(run.weights, *learner.weights())
    if learner.adversary and run.is_missing(run.discriminator):
        save_weights(run.discriminator, learner.adversary.network.state_dict(), None)


@contextmanager
def _record(
    plan: Plan, run: RunFolder, progress: TrainingProgress, say: Callable[[str], None], notes: Sequence[str]
) -> Iterator[Record]:
    """Print the plan with further notes, write it, then open the run's record."""
    resumed = f", resumed at step {progress.step:,}" if progress.step else ""
    advice = [] if progress.step else few_steps(plan)
    say("\n".join([describe(plan), *advice, *notes, f"Run      {run.home}{resumed}"]))
    if plan.rank_info.job is not None:
        run.write_job(plan.rank_info.job)
    run.write_config(plan.config.as_yaml())
    run.write_plan(_facts(plan))
    run.publish()  # fail now if the store is not writable
    patches = plan.loader.patches_per_step
    with open_record(run, plan.folder.fingerprint(), progress.step, plan.total_steps, patches) as record:
        yield record


def _facts(plan: Plan) -> dict[str, Any]:
    """Return the derived values for plan.json."""
    return {
        "steps": plan.total_steps,
        "patches_per_step": plan.loader.patches_per_step,
        "lr": plan.lr,
        "warmup": plan.warmup,
        "schedule": plan.schedule,
        **({"milestones": list(plan.milestones)} if plan.milestones else {}),
        "optimizer": plan.config.optimizer,
        "ema": plan.ema,
        "val_every": plan.val_every,
        "val_every_adapts": plan.adapts_val_every,
        "scale": plan.folder.scale,
        "parameters": num_parameters(plan.spec.build()),
        "device": describe_device(plan.device),
        "precision": str(plan.precision),
        **({"best_by": str(plan.best_by)} if plan.best_by else {}),
        "model": plan.config.model or plan.spec.name,
        "network": plan.spec.as_json(),
    }


def _train(
    plan: Plan,
    run: RunFolder,
    learner: Learner,
    validation: Validation | None,
    progress: TrainingProgress,
    record: Record,
    stop: StopRequest,
    account: Account,
    queue: DeviceQueue,
    group: RankGroup,
) -> TrainingResult:
    settings = LoopSettings(
        total_steps=plan.total_steps,
        val_every=plan.val_every,
        adapts_val_every=plan.adapts_val_every,
        log_every=plan.log_every,
        save_every=plan.config.save_every,
        patches=plan.loader.patches_per_step,
        num_samples=plan.loader.num_samples,
        origin=plan.folder.origin,
        memory_advice=memory_advice(plan),
        step_mode=plan.step_mode,
        best_by=plan.best_by,
    )
    loop = TrainingLoop(settings, learner, plan.loader, validation, progress, record, account, queue, group)
    try:
        with plan.loader:
            loop.run(stop)
    except RunError as error:
        with suppress(RunError):  # the same full disk again
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
        account=account,
    )


def make_learner(plan: Plan, group: RankGroup = SINGLE_PROCESS_GROUP) -> Learner:
    """Return the learner with weights drawn from the seed."""
    config, spec = plan.config, plan.spec
    adversary = _adversary(plan, config.gan, group) if config.gan else None
    adversarial = AdversarialTerm(config.gan, adversary.generator_loss) if config.gan and adversary else None
    network, ema_network = (_channels_last(spec.build(config.seed).to(plan.device)) for _ in range(2))
    settings = StepSettings(
        total_steps=plan.total_steps,
        lr=plan.lr,
        warmup=plan.warmup,
        objective=Objective(config.loss, plan.device, config.perceptual_weights, adversarial),
        precision=plan.precision,
        micro_batches=plan.loader.micro_batches,
        clip=config.clip,
        ema=plan.ema,
        mode=plan.step_mode,
        decay=decay_of(plan.schedule, milestone_steps(plan.milestones, plan.total_steps)),
        optimizer=config.optimizer,
        augments=config.augment,
        seed=config.seed,
        sharpen=Sharpen(plan.patch_size).to(plan.device) if config.sharpen_hr else None,
    )
    ddp = group.wrap_ddp(network, plan.device, plan.step_mode.compiles)
    ema_network.load_state_dict(network.state_dict())
    is_averaged = plan.ema or config.optimizer == SCHEDULE_FREE
    return Learner(network, ema_network if is_averaged else None, settings, ddp, adversary)


def _adversary(plan: Plan, term: LossTerm, group: RankGroup) -> Adversary:
    """Return the discriminator with weights drawn from the seed."""
    network = build_discriminator(plan.discriminator, plan.config.seed)
    settings = AdversarySettings(ADVERSARIAL_LOSSES[term.name], plan.precision, plan.step_mode, plan.discriminator_lr)
    return Adversary(_channels_last(network.to(plan.device)), settings, group)


def _channels_last(network: AnyNetwork) -> AnyNetwork:
    """Return the network in channels_last layout, the layout of the batches, in which convolutions are fastest."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _validation(plan: Plan, group: RankGroup) -> Validation | None:
    """Return the validation with its photos and metrics loaded: what is missing or damaged must not be found later."""
    if plan.best_by is None:
        return None
    metrics = measured(plan.config)
    if group.is_rank0:
        check_photos(chain.from_iterable(one.photos for one in plan.sets), plan.folder.scale, metrics)
    names = [name for name in metrics if name in PERCEPTUAL]
    perceptual = load_metrics(names, plan.device, plan.config.metric_weights) if names else None
    validation = Validation(plan.sets, group, perceptual)
    validation.load(int(_PHOTOS_SHARE * available_memory_bytes()) // plan.rank_info.local_world_size)
    return validation


def _peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
