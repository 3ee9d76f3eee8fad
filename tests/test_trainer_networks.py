"""Every network of the catalogue, at a small width: it trains, resumes exactly, opens in spandrel, tiles without seams.

A network is one row of NARROW. Of rows that are equal at the small width, the first is tested.
"""

import io
import itertools
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers import make_photo
from torch import Tensor
from torch.nn import functional

from srshards import PatchBatch
from srshards.imaging.bicubic import bicubic_down
from trainer.catalogue import NETWORKS
from trainer.inference.tiles import TileRule, apply_in_tiles
from trainer.loss_terms import LossTerm
from trainer.models import NetworkSpec, spec_from_json
from trainer.models.spandrel_import import load_spandrel
from trainer.models.weights import load_network, save_weights
from trainer.training.device import Precision
from trainer.training.learner import Learner, StepSettings
from trainer.training.objective import Objective
from trainer.training.step_loss import to_unit_range
from trainer.training.step_mode import StepMode

NETWORKS_PAGE = Path(__file__).parent.parent / "docs/reference/networks.md"
SCALE = 2
STEPS = 20

# The names in spandrel of the architectures of this package.
CLASSES = {"compact": "SRVGGNetCompact", "rrdb": "RRDBNet"}
# The largest difference that tiles may make, in grey levels. None but rounding, except where every output pixel depends
# on all of the tile: by pooled attention, or by attention between pixels that are far apart.
ROUNDING = 0.01
TILES = {"SAFMN": 0.2, "DAT": 0.5, "ATD": 4, "RGT": 8, "OmniSR": 16}

# For each network the arguments that make it small. What is not listed is that of the catalogue.
_COMPACT = {"features": 12, "depth": 3}
_RRDB = {"features": 12, "depth": 1, "growth": 32}
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
    "drct_s": {"embed_dim": 12, "depths": (6,), "num_heads": (2,), "window_size": 8, "gc": 4},
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


def distinct() -> list[str]:
    """Return the first network of each group that is equal at the small width."""
    first: dict[str, str] = {}
    for name, row in NETWORKS.items():
        first.setdefault(f"{row.architecture} {sorted({**row.arguments, **NARROW.get(name, {})}.items())}", name)
    return list(first.values())


EACH = pytest.mark.parametrize("name", distinct())


@cache
def narrow(name: str, scale: int = SCALE) -> NetworkSpec:
    row = NETWORKS[name]
    arguments = {**row.arguments, **NARROW[name]}
    return spec_from_json({"architecture": row.architecture, "scale": scale, "arguments": arguments})


def test_every_network_of_the_catalogue_is_tested() -> None:
    assert NARROW.keys() ^ NETWORKS.keys() == set(), "each network needs its small arguments in NARROW"


# ---- training


class Training(NamedTuple):
    """A network that was trained on one batch, and its losses."""

    learner: Learner
    losses: list[float]


def make_learner(spec: NetworkSpec) -> Learner:
    network, ema_network = (spec.build(0).to(memory_format=torch.channels_last) for _ in range(2))  # type: ignore[call-overload]
    settings = StepSettings(STEPS, 3e-3, 5, Objective([LossTerm("l1")]), Precision(None), 1, 1.0, 0.9, StepMode())
    return Learner(network, ema_network, settings)


@cache
def batch(scale: int) -> PatchBatch:
    """Two patches of 16 px, which are whole windows of all narrow networks."""
    hr = [make_photo(16 * scale, 16 * scale, seed=seed) for seed in (1, 2)]
    lr = [bicubic_down(photo, scale) for photo in hr]
    hr_batch, lr_batch = (torch.stack([torch.from_numpy(photo) for photo in photos]) for photos in (hr, lr))
    return PatchBatch(hr_batch, lr_batch, ())


def train(learner: Learner, steps: range) -> list[float]:
    return [float(learner.step(step, itertools.repeat(batch(learner.network.scale)))) for step in steps]


@cache
def trained(spec: NetworkSpec) -> Training:
    learner = make_learner(spec)
    losses = train(learner, range(STEPS))
    learner.network.eval()
    return Training(learner, losses)


@EACH
def test_gradients_reach_every_parameter(name: str) -> None:
    network = narrow(name).build()
    hr, lr, _ = batch(SCALE)
    functional.l1_loss(network(to_unit_range(lr)), to_unit_range(hr)).backward()
    for parameter_name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and bool(parameter.grad.any()), parameter_name


@pytest.mark.slow
@EACH
def test_one_batch_is_overfitted(name: str) -> None:
    losses = trained(narrow(name)).losses
    share = 0.8 if narrow(name).architecture == "compact" else 0.6  # which starts as interpolation
    assert losses[-1] < share * losses[0], f"{losses[0]:.3f} -> {losses[-1]:.3f}"


def weights_of_four_steps(spec: NetworkSpec, resumes: bool) -> list[dict[str, Tensor]]:
    """Return the weights and their EMA after four steps, in one go or resumed after two from a file."""
    learner = make_learner(spec)
    train(learner, range(2))
    if resumes:
        file = io.BytesIO()
        torch.save(learner.state(), file)
        file.seek(0)
        torch.rand(1)  # a new process has another state of the global generator
        learner = make_learner(spec)
        learner.restore(torch.load(file))
    train(learner, range(2, 4))
    weights, ema = learner.weights()
    assert ema is not None
    return [weights, ema]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lite", "standard"])
def test_resuming_is_exact(name: str) -> None:
    """Of the architectures of this package; those of spandrel: tests/test_trainer_spandrel.py."""
    spec = narrow(name)
    for expected, found in zip(*(weights_of_four_steps(spec, resumes) for resumes in (False, True)), strict=True):
        assert expected.keys() == found.keys() and all(torch.equal(expected[key], found[key]) for key in expected)


# ---- files


@pytest.mark.slow
@EACH
def test_saved_weights_open_in_spandrel(name: str, tmp_path: Path) -> None:
    """Under the same architecture, and with the same output: of the network, of its EMA, and of the file read here."""
    spec, (learner, _) = narrow(name), trained(narrow(name))
    images = torch.rand(1, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    for kind, network in (("network", learner.network), ("ema", learner.evaluation_network)):
        path = tmp_path / f"{kind}.pth"
        save_weights(path, network.state_dict(), None)
        saved = torch.load(path)["params"]
        assert {n: value.dtype for n, value in saved.items()} == {n: v.dtype for n, v in network.state_dict().items()}
        theirs, ours = load_spandrel().ModelLoader().load_from_file(path), load_network(path)
        theirs.eval()
        assert theirs.scale == SCALE and type(theirs.model).__name__ == CLASSES.get(
            spec.architecture, spec.architecture
        )
        assert ours.spec == spec
        with torch.inference_mode():
            output = network(images)
            for found in (theirs.model(images.clone()), ours(images)):
                assert float((output - found).abs().max()) <= 1e-5


@pytest.mark.parametrize("architecture", dict.fromkeys(row.architecture for row in NETWORKS.values()))
def test_files_of_every_scale_open_in_spandrel(architecture: str, tmp_path: Path) -> None:
    name = next(row.name for row in NETWORKS.values() if row.architecture == architecture)
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for scale in (1, 3, 8) if architecture != "rrdb" else (1, 2, 4):
        network = narrow(name, scale).build().eval()
        theirs = load_spandrel().MAIN_REGISTRY.load(dict(network.state_dict()))
        save_weights(tmp_path / "w.pth", network.state_dict(), None)
        assert theirs.scale == scale and load_network(tmp_path / "w.pth").spec == network.spec
        with torch.inference_mode():
            assert float((network(images) - theirs.model.eval()(images.clone())).abs().max()) <= 1e-5, scale


# ---- tiles


@pytest.mark.slow
@EACH
def test_tiles_have_no_seams(name: str) -> None:
    """A photo upscaled in tiles differs from the photo upscaled as a whole by no more than TILES."""
    network = trained(narrow(name)).learner.network
    rule = TileRule.of(network.spec)
    photo = torch.from_numpy(make_photo(32, rule.smallest_px + 32, seed=3)).permute(2, 0, 1)[None]
    whole, tiled = (apply_in_tiles(network, photo, tile, rule) for tile in (None, rule.smallest_px))
    difference = 255 * float((whole - tiled).abs().max())
    assert difference <= TILES.get(network.spec.architecture, ROUNDING)


# ---- the page


def test_the_page_has_a_row_for_every_network() -> None:
    """In the order of the catalogue, with its use and its source."""
    table = NETWORKS_PAGE.read_text("utf-8").partition("## ")[0]
    table = re.sub(r"\[decision \d+\]\(\.\./(.*?)\)", r"docs/\1", table)
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]
    found = [(name.strip(" |`"), use, source) for name, _, use, source, *_ in rows]
    assert found == [(row.name, row.use, row.source) for row in NETWORKS.values()]
