"""A training run from its settings to its weights."""

import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch

from trainer.cache.fetcher import FetchedAhead
from trainer.checkpoint import Progress, explained, load_state
from trainer.device import limit_threads
from trainer.display import Display
from trainer.errors import RunError
from trainer.journal import Journal
from trainer.learner import Learner, StepSettings
from trainer.loop import LoopSettings, TrainingLoop
from trainer.losses import LOSSES
from trainer.models import Network
from trainer.plan import Plan, describe
from trainer.run_folder import RunFolder
from trainer.stopping import StopRequest
from trainer.stream.batches import BatchReader
from trainer.stream.loader import Loader
from trainer.stream.resident import ResidentSamples
from trainer.stream.source import Source
from trainer.validation import Validation, ValidationResult
from trainer.weights import load_into


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `last` is None when nothing was validated since it began or went on."""

    finished: bool
    progress: Progress
    last: ValidationResult | None
    patches_per_step: int
    peak_memory_bytes: int


def train(plan: Plan, run: RunFolder, stop: StopRequest, say: Callable[[str], None]) -> Outcome:
    """Train, from the beginning or from `run`'s state if it has one."""
    limit_threads()
    torch.backends.cudnn.benchmark = True  # all batches have one shape: its fastest kernels are worth a search
    learner = make_learner(plan)
    with run.locked():
        return _train(plan, run, learner, stop, say)


def _train(plan: Plan, run: RunFolder, learner: Learner, stop: StopRequest, say: Callable[[str], None]) -> Outcome:
    data = plan.folder.fingerprint()
    progress = Progress()
    if run.state.exists():
        progress, state = load_state(run.state, data)
        with explained(run.state):
            learner.restore(state)
    going_on = f", going on at step {progress.step:,}" if progress.step else ""
    say(f"{describe(plan)}\nRun      {run.path}{going_on}")
    run.write_config(plan.config.as_yaml())
    settings = LoopSettings(
        total_steps=plan.total_steps,
        val_every=plan.val_every,
        log_every=plan.log_every,
        patches=plan.rows.global_batch,
        num_samples=plan.schedule.num_samples,
        folder=plan.folder.path,
        data=data,
        smaller=plan.smaller,
        compiled=plan.config.compile,
    )
    with (
        Journal(run.journal, run.tensorboard, progress.step) as journal,
        Display(progress.step, plan.total_steps) as display,
    ):
        loop = TrainingLoop(
            settings, learner, make_source(plan, progress.step), _validation(plan), progress, run, journal, display
        )
        try:
            loop.run(stop)
        except RunError as error:
            with suppress(RunError):  # of a disk that is full, which is the error itself
                journal.note("error", progress.step, message=str(error))
            raise
    return Outcome(
        finished=progress.step == plan.total_steps and progress.validated,
        progress=progress,
        last=loop.last_validation,
        patches_per_step=plan.rows.global_batch,
        peak_memory_bytes=_peak_memory_bytes(plan.device),
    )


def make_learner(plan: Plan) -> Learner:
    """The network as it is drawn from the seed or found in `--init`, ready for its first step."""
    config, spec = plan.config, plan.spec
    network, average = (_channels_last(spec.build(config.seed).to(plan.device)) for _ in range(2))
    settings = StepSettings(
        total_steps=plan.total_steps,
        lr=plan.lr,
        warmup=plan.warmup,
        loss=LOSSES[config.loss],
        precision=plan.precision,
        micro_batches=config.grad_accum,
        clip=config.clip,
        ema=config.ema,
    )
    forward: Callable[[torch.Tensor], torch.Tensor] = torch.compile(network) if config.compile else network
    if config.init is not None:
        load_into(network, config.init)
        average.load_state_dict(network.state_dict())
    return Learner(network, average if config.ema else None, settings, forward)


def _channels_last(network: Network) -> Network:
    """Batches arrive as N x H x W x 3; convolutions are fastest when their weights have that layout too."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def make_source(plan: Plan, step: int, fetch_ahead: bool = True) -> Source:
    """The batches of a run from a step on."""
    config, folder = plan.config, plan.folder
    reader = BatchReader(
        shards=[(folder.tar(record), record.samples) for record in folder.train],
        codec=folder.codec,
        schedule=plan.schedule,
        grid=plan.grid,
        input_names=folder.inputs(config.input),
        seed=config.seed,
        cached=folder.cached.open if folder.cached else None,
        folder=folder.path,
    )
    if config.resident:
        return ResidentSamples(reader, plan.rows, step, plan.total_steps, plan.device)
    loader = Loader(reader, plan.rows, step, plan.total_steps, plan.workers, config.prefetch, plan.device)
    if folder.cached and fetch_ahead and os.environ.get("LOCAL_RANK", "0") == "0":  # one fetcher on a machine
        return FetchedAhead(loader, folder.cached, plan.ahead, step, config.grad_accum)
    return loader


def _validation(plan: Plan) -> Validation | None:
    if not plan.folder.val:
        return None
    return Validation(plan.folder, plan.config.input == "up", plan.config.val_samples)


def _peak_memory_bytes(device: torch.device) -> int:
    """Of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
