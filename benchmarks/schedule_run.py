"""One training of `bench_schedule`: settings, rate of every step, and PSNR-Y of the weights and of several EMAs."""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn

from srshards import PatchBatch
from srshards.errors import RunError
from srshards.imaging.luma import luma_studio_range
from srshards.shards.folder import Shards
from trainer.evaluation.pairs import Pair
from trainer.inference.image_function import as_function
from trainer.losses.pixel import l1
from trainer.models import Network, NetworkSpec, network_spec
from trainer.models.blocks import BuiltInSpec
from trainer.training.config import TrainConfig
from trainer.training.learner import Learner, StepSettings
from trainer.training.optim import Ema, learning_rate
from trainer.training.plan import Plan, derive_plan

SCALE = 4
_DECAY_SHARE = 0.3  # of a run with the shape `trapezoid`
_CHECKS = 4  # evaluations, evenly spaced, the last after the last step
_PROXIES = {  # features, blocks and growth of smaller RRDBNets
    "rrdb_32x4": (32, 4, 16),
    "rrdb_16x4": (16, 4, 8),
    "rrdb_32x2": (32, 2, 16),
}


@dataclass(frozen=True)
class Case:
    """The settings of a training. `lr`, `warmup` and `ema` None are the trainer's defaults."""

    model: str = "ultra_lite"
    steps: int = 300
    lr: float | None = None
    warmup: int | None = None
    shape: str = "cosine"  # that of the trainer; see `rate`
    start: str = "ours"  # initial weights: the trainer's, or PyTorch's default for its layers
    clip: float = 1.0
    amp: str = "auto"
    batch: int = 16
    patch: int = 192  # HR px
    seed: int = 0

    @property
    def key(self) -> str:
        """The settings that differ from the defaults, without the seed."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        shown = {"model", "steps"} | {field.name for field in fields(self) if given[field.name] != field.default}
        return " ".join(f"{name}={given[name]}" for name in given if name in shown - {"seed"})


class _ConstantEma(Ema):
    """EMA whose decay is the same from the first step, as in BasicSR."""

    def set_step(self, step: int) -> None:
        super().set_step(2**40)


class _Scheduled(Learner):
    """A learner with the rate of a case."""

    shape = "cosine"

    def rate(self, step: int) -> float:
        settings = self.settings
        return rate(self.shape, step, settings.total_steps, settings.lr, settings.warmup)


def rate(shape: str, step: int, total: int, peak: float, warmup: int) -> float:
    """Return the rate of a step: linear warm-up, then `shape`.

    `cosine` is the trainer's, to 1 % of the peak; `cosine-0` and `cosine-10` end at 0 and 10 %; `linear` falls to 0;
    `trapezoid` stays at the peak and falls linearly to 0 in the last 30 % of the run.
    """
    if shape == "cosine" or step < warmup:
        return learning_rate(step, total, peak, warmup)
    left = (total - step) / (total - warmup)  # from 1 to almost 0
    if shape == "linear":
        return peak * left
    if shape == "trapezoid":
        return peak * min(1.0, (total - step) / (_DECAY_SHARE * total))
    floor = {"cosine-0": 0.0, "cosine-10": 0.1}[shape]
    return peak * (floor + (1 - floor) * (1 - math.cos(math.pi * left)) / 2)


def run(case: Case, shards: Shards, pairs: list[Pair]) -> dict[str, Any]:
    """Train, and return PSNR-Y after each quarter of the run, in dB, with the CPU time of a step."""
    plan = _plan(case, shards)
    learner, emas = _learner(case, plan)
    losses, checks = list[Tensor](), list[float]()
    steps_s = 0.0
    with plan.loader as loader:
        batches = loader.steps(0, case.steps)
        for step in range(case.steps):
            start_s = process_time()
            losses.append(_step(learner, emas, step, batches))
            steps_s += process_time() - start_s
            if (step + 1) * _CHECKS // case.steps > step * _CHECKS // case.steps:
                checks.append(round(psnr_y(emas["ema"].network, pairs), 3))
    return {
        "lr": learner.settings.lr,
        "warmup": learner.settings.warmup,
        "psnr_y": _qualities(learner, emas, pairs),
        "psnr_y_of_quarters": checks,
        "losses": [round(float(part.mean()), 5) for part in torch.stack(losses).tensor_split(min(20, case.steps))],
        "step_cpu_s": round(steps_s / case.steps, 4),
        "device": str(plan.device),
        "precision": str(plan.precision),
    }


def _step(learner: Learner, emas: dict[str, Ema], step: int, batches: Iterator[PatchBatch]) -> Tensor:
    loss = learner.step(step, batches)
    for ema in emas.values():
        ema.set_step(step)
        ema.update(learner.network)
    return loss.clone()


def _qualities(learner: Learner, emas: dict[str, Ema], pairs: list[Pair]) -> dict[str, float]:
    networks = {"weights": learner.network, **{name: ema.network for name, ema in emas.items()}}
    return {name: round(psnr_y(network, pairs), 3) for name, network in networks.items()}


def psnr_y(network: Network, pairs: Iterable[Pair]) -> float:
    """Return the mean PSNR-Y over the images in dB, without a border of `scale` px; NaN if an output is not finite."""
    function = as_function(network, next(network.parameters()).device)
    try:
        found = [psnr_y_of(function(pair.input), pair) for pair in pairs]
    except RunError:
        return math.nan
    return sum(found) / len(found)


def psnr_y_of(output: Any, pair: Pair) -> float:
    """Return the PSNR-Y of an output in dB; SSIM, which the trainer's metrics include, would take seconds."""
    inside = slice(pair.scale, -pair.scale)
    difference = luma_studio_range(output[inside, inside]) - luma_studio_range(pair.hr[inside, inside])
    return float(10 * math.log10(255**2 / (difference**2).mean()))


def _plan(case: Case, shards: Shards) -> Plan:
    config = TrainConfig(
        shards=shards.path,
        model=case.model if case.model not in _PROXIES else "standard",
        steps=case.steps,
        batch_size=case.batch,
        patch_size=case.patch,
        lr=case.lr,
        warmup=case.warmup,
        clip=case.clip,
        amp=case.amp,
        seed=case.seed,
        workers=0,
    )
    return derive_plan(config, shards)


def _learner(case: Case, plan: Plan) -> tuple[Learner, dict[str, Ema]]:
    network = _network(case).to(plan.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    settings = StepSettings(
        total_steps=case.steps,
        lr=plan.lr,
        warmup=plan.warmup,
        loss=l1,
        precision=plan.precision,
        micro_batches=1,
        clip=case.clip,
        ema=0.0,
        mode=plan.step_mode,
    )
    emas = {
        "ema": Ema(copy.deepcopy(network), plan.ema),
        "ema_no_warmup": _ConstantEma(copy.deepcopy(network), plan.ema),
    }
    learner = _Scheduled(network, None, settings)
    learner.shape = case.shape
    return learner, emas


def _network(case: Case) -> Network:

    if case.model in _PROXIES:
        features, depth, growth = _PROXIES[case.model]
        spec: NetworkSpec = BuiltInSpec("rrdb", SCALE, features, depth, growth)
    else:
        spec = network_spec(case.model, SCALE)
    network = spec.build(case.seed)
    if case.start == "pytorch":
        torch.manual_seed(case.seed)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
    return network
