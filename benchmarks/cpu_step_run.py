"""Train on one repeated batch of noise on the CPU; print one line of JSON.

python -m benchmarks.cpu_step_run plain|eager|compiled MODEL BATCH STEPS
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from itertools import repeat
from time import perf_counter, process_time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the trainer does, before PyTorch is imported

import torch
from torch import Tensor, nn
from torch.nn import functional

from srshards import PatchBatch
from srshards.process.allocator import keep_freed_memory
from trainer.loss_terms import LossTerm
from trainer.models import Network, network_spec
from trainer.models.blocks import upsample_nearest
from trainer.models.compact import Compact
from trainer.training.device import choose_precision, limit_threads
from trainer.training.learner import Learner, StepSettings
from trainer.training.objective import Objective
from trainer.training.optim import AdamW, Ema
from trainer.training.step_loss import to_unit_range
from trainer.training.step_mode import StepMode

SCALE, PATCH_PX = 4, 192
_WARM_UPS = 2
_LR, _CLIP, _EMA = 1e-3, 1.0, 0.999
_CPU = torch.device("cpu")

Step = Callable[[int, PatchBatch], Tensor]


class PlainCompact(nn.Module):
    """A compact network as it is usually written: nn.PReLU, and a pixel shuffle before the addition."""

    def __init__(self, network: Compact) -> None:
        super().__init__()
        self.body = nn.Sequential(*map(_plain, network.body))

    def forward(self, images: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.body(images), SCALE) + upsample_nearest(images, SCALE)


def _plain(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, nn.PReLU):
        return layer
    plain = nn.PReLU(layer.num_parameters)
    plain.weight = layer.weight
    return plain


def plain_step(network: Network, ema_network: Network) -> Step:
    """Return the step with the loss `.abs().mean()`; its other parts are the trainer's."""
    forward = PlainCompact(network) if isinstance(network, Compact) else network
    optimizer, ema = AdamW(network.parameters(), _LR), Ema(ema_network, _EMA)
    dtype = choose_precision("auto", _CPU).dtype

    def step(number: int, batch: PatchBatch) -> Tensor:
        target = to_unit_range(batch.hr)
        with torch.autocast("cpu", dtype, enabled=dtype is not None, cache_enabled=False):
            output = forward(to_unit_range(batch.input))
        loss: Tensor = (output.float() - target).abs().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
        optimizer.step()
        optimizer.zero_grad()
        ema.set_step(number)
        ema.update(network)
        return loss.detach()

    return step


def trainer_step(network: Network, ema_network: Network, compiles: bool) -> Step:
    """Return the step of the trainer, at a constant learning rate."""
    mode, precision = StepMode(compiles=compiles), choose_precision("auto", _CPU)
    settings = StepSettings(sys.maxsize, _LR, 0, Objective([LossTerm("l1")]), precision, 1, _CLIP, _EMA, mode)
    learner = Learner(network, ema_network, settings)
    return lambda number, batch: learner.step(number, repeat(batch))


def networks(model: str) -> tuple[Network, Network]:
    """Return the network and that of its EMA, with the same weights."""
    return _network(model), _network(model)


def _network(model: str) -> Network:
    network = network_spec(model, SCALE).build()
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def noise(batch: int) -> PatchBatch:
    """Return a batch of uniform noise."""
    draw = torch.Generator().manual_seed(0)
    hr, lr = (
        torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=draw)
        for side in (PATCH_PX, PATCH_PX // SCALE)
    )
    return PatchBatch(hr, lr, ())


def main(case: str, model: str, batch_size: int, steps: int) -> None:
    """Measure wall clock, CPU time and page faults of each step after the first ones."""
    limit_threads()
    if case == "plain":
        step = plain_step(*networks(model))
    else:
        keep_freed_memory()
        step = trainer_step(*networks(model), compiles=case == "compiled")
    batch = noise(batch_size)
    start_s = perf_counter()
    for number in range(_WARM_UPS):
        loss = step(number, batch).item()
    start_up_s, seconds, cpu_seconds = perf_counter() - start_s, [], []
    faults = _page_faults()
    for number in range(_WARM_UPS, _WARM_UPS + steps):
        wall_s, cpu_s = perf_counter(), process_time()
        loss = step(number, batch).item()
        seconds.append(perf_counter() - wall_s)
        cpu_seconds.append(process_time() - cpu_s)
    found = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "start_up_s": start_up_s,
        "page_faults": (_page_faults() - faults) / steps,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "loss": loss,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(found), flush=True)


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
