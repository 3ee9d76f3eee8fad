"""Every network of the catalogue, at a small width: it trains, resumes exactly, opens in spandrel, tiles and exports.

A network is one row of NARROW. Rows that are equal at the small width share their training.
"""

import copy
import io
import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers import make_photo
from torch import Tensor

from srshards import PatchBatch
from srshards.imaging.bicubic import bicubic_down
from trainer.catalogue import NETWORKS
from trainer.inference.tiles import apply_in_tiles
from trainer.models import Network, NetworkSpec, network_spec, spec_from_json
from trainer.models.spandrel_import import load_spandrel
from trainer.models.weights import load_network, save_weights
from trainer.training.device import Precision
from trainer.training.learner import Learner, StepSettings
from trainer.training.losses import l1
from trainer.training.step_mode import StepMode

SCALE = 2
STEPS = 80

# For each network the arguments that make it small. What is not listed is that of the catalogue.
_COMPACT = {"features": 12, "depth": 3}
_RRDB = {"features": 12, "depth": 1, "growth": 6}
_SPAN = {"feature_channels": 12}
_PLKSR = {"dim": 16, "n_blocks": 2, "kernel_size": 7}
_MOSR = {"dim": 16, "n_block": 2}
_SAFMN = {"dim": 16, "n_blocks": 2}
# 16 channels or more for each of the two spatial attentions: their position encodings have a 16th of the channels
_RECTANGLES = {"embed_dim": 64, "num_heads": (4,), "split_size": (4, 8)}
NARROW: dict[str, dict[str, Any]] = {
    "ultra_lite": _COMPACT,
    "lite": _COMPACT,
    "standard": _RRDB,
    "compact_ultra": _COMPACT,
    "compact_super_ultra": _COMPACT,
    "esrgan_lite": _RRDB,
    "span": _SPAN,
    "span_s": _SPAN,
    "plksr": _PLKSR,
    "plksr_tiny": _PLKSR,
    "realplksr": _PLKSR,
    "realplksr_tiny": _PLKSR,
    "mosr": _MOSR,
    "mosr_t": _MOSR,
    "safmn": _SAFMN,
    "safmn_l": _SAFMN,
    "omnisr": {"num_feat": 16, "res_num": 1},
    "swinir_s": {"embed_dim": 12, "depths": (2,), "num_heads": (2,)},
    "dat_light": {**_RECTANGLES, "depth": (2,)},
    "atd_light": {"depths": (2,), "num_heads": (4,), "window_size": 8, "num_tokens": 16},
    "drct_s": {"embed_dim": 12, "depths": (6,), "num_heads": (2,), "gc": 4},
    "rgt_s": {**_RECTANGLES, "depth": (2,)},
    "hat_s": {
        "embed_dim": 24,
        "depths": (2,),
        "num_heads": (2,),
        "window_size": 8,
        "compress_ratio": 4,
        "squeeze_factor": 6,
    },
}


@cache
def narrow(name: str, scale: int = SCALE) -> NetworkSpec:
    row = NETWORKS[name]
    arguments = {**row.arguments, **NARROW[name]}
    return spec_from_json({"architecture": row.architecture, "scale": scale, "arguments": arguments})


def test_every_network_of_the_catalogue_is_tested() -> None:
    assert list(NARROW) == list(NETWORKS)


# ---- training


class Training(NamedTuple):
    """A network that was trained on one batch, its losses, and its weights before and after the first step."""

    learner: Learner
    losses: list[float]
    before: dict[str, Tensor]
    after: dict[str, Tensor]


def make_learner(spec: NetworkSpec) -> Learner:
    network, ema_network = (spec.build(3).to(memory_format=torch.channels_last) for _ in range(2))  # type: ignore[call-overload]
    settings = StepSettings(STEPS, 2e-3, 5, l1, Precision(None), 1, 1.0, 0.9, StepMode())
    return Learner(network, ema_network, settings)


def batches(spec: NetworkSpec) -> Iterator[PatchBatch]:
    """Yield one batch of two patches again and again. Its LR patches have 32 px, a multiple of all windows."""
    hr = [make_photo(32 * spec.scale, 32 * spec.scale, seed=seed) for seed in (1, 2)]
    lr = [bicubic_down(photo, spec.scale) for photo in hr]
    hr_batch, lr_batch = (torch.stack([torch.from_numpy(photo) for photo in photos]) for photos in (hr, lr))
    return itertools.repeat(PatchBatch(hr_batch, lr_batch, ()))


def parameters(network: Network) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


@cache
def trained(spec: NetworkSpec) -> Training:
    learner, batch = make_learner(spec), batches(spec)
    before = parameters(learner.network)
    losses = [float(learner.step(0, batch))]
    after = parameters(learner.network)
    losses += [float(learner.step(step, batch)) for step in range(1, STEPS)]
    return Training(learner, losses, before, after)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_trains_every_parameter(name: str) -> None:
    training = trained(narrow(name))
    kept = [key for key, value in training.before.items() if torch.equal(value, training.after[key])]
    assert not kept


@pytest.mark.parametrize("name", NETWORKS)
def test_one_batch_is_overfitted(name: str) -> None:
    losses = trained(narrow(name)).losses
    print(name, losses[0], losses[-1])
    assert losses[-1] < losses[0] / 2
