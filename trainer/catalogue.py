"""The networks that `--model` names: architecture, size, training settings and where these come from.

Does not import PyTorch, so that `--help` and completion stay fast.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from srshards.errors import UsageError
from srshards.terminal.text import did_you_mean


@dataclass(frozen=True)
class NamedNetwork:
    """A network by name, and the settings to train it from scratch with.

    `arguments` are `features`, `depth` and `growth` for the architectures "compact" and "rrdb", and the constructor's
    arguments for an architecture of spandrel, without those that give the scale. `lr` is the peak rate of AdamW at
    batches of 16.
    """

    name: str
    architecture: str  # "compact", "rrdb" or the name of a class of spandrel; see trainer/models/architectures.py
    arguments: Mapping[str, Any]
    lr: float
    use: str  # what it is good for, in a few words
    source: str  # of the arguments and the rate

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))


_ROWS = (
    NamedNetwork(
        "ultra_lite",
        "compact",
        {"features": 24, "depth": 8},
        4e-3,
        "short runs, training on a CPU",
        "docs/decisions/027-initialisation-and-learning-rates.md",
    ),
    NamedNetwork(
        "lite",
        "compact",
        {"features": 64, "depth": 16},
        1e-3,
        "fast upscaling, also of video",
        "docs/decisions/034-warm-up-and-rates.md",
    ),
    NamedNetwork(
        "standard",
        "rrdb",
        {"features": 64, "depth": 23, "growth": 32},
        2e-4,
        "quality, with a GPU (ESRGAN)",
        "docs/decisions/034-warm-up-and-rates.md",
    ),
    NamedNetwork(
        "compact_ultra",
        "compact",
        {"features": 64, "depth": 8},
        2e-4,
        "video in real time on a GPU",
        "traiNNer-redux, UltraCompact",
    ),
    NamedNetwork(
        "compact_super_ultra",
        "compact",
        {"features": 24, "depth": 8},
        2e-4,
        "the network of ultra_lite at the usual rate, for long runs",
        "traiNNer-redux, SuperUltraCompact",
    ),
    NamedNetwork(
        "esrgan_lite",
        "rrdb",
        {"features": 32, "depth": 12, "growth": 32},
        2e-4,
        "quality at a fraction of standard's cost",
        "traiNNer-redux, ESRGAN_lite",
    ),
    NamedNetwork(
        "span",
        "SPAN",
        {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 52, "norm": False},
        5e-4,
        "video in real time on a GPU",
        "traiNNer-redux, SPAN",
    ),
    NamedNetwork(
        "span_s",
        "SPAN",
        {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 48, "norm": False},
        5e-4,
        "video in real time on a GPU",
        "traiNNer-redux, SPAN_S",
    ),
    NamedNetwork(
        "plksr",
        "PLKSR",
        {"dim": 64, "n_blocks": 28, "kernel_size": 17, "split_ratio": 0.25, "ccm_type": "DCCM"},
        2e-4,
        "quality at moderate cost",
        "size: dslisleedh/PLKSR; rate: traiNNer-redux, PLKSR",
    ),
    NamedNetwork(
        "plksr_tiny",
        "PLKSR",
        {"dim": 64, "n_blocks": 12, "kernel_size": 13, "split_ratio": 0.25, "ccm_type": "DCCM", "use_ea": False},
        2e-4,
        "fast upscaling",
        "dslisleedh/PLKSR, 64_12_0.25_13",
    ),
    NamedNetwork(
        "realplksr",
        "RealPLKSR",
        {"dim": 64, "n_blocks": 28, "kernel_size": 17, "split_ratio": 0.25, "layer_norm": True},
        2e-4,
        "degraded photos at moderate cost",
        "traiNNer-redux, RealPLKSR",
    ),
    NamedNetwork(
        "realplksr_tiny",
        "RealPLKSR",
        {
            "dim": 64,
            "n_blocks": 12,
            "kernel_size": 13,
            "split_ratio": 0.25,
            "use_ea": False,
            "layer_norm": True,
        },
        2e-4,
        "fast upscaling of degraded photos",
        "traiNNer-redux, RealPLKSR_Tiny",
    ),
    NamedNetwork(
        "mosr",
        "MoSR",
        {"dim": 64, "n_block": 24, "kernel_size": 7, "expansion_ratio": 1.5},
        2e-4,
        "degraded photos at moderate cost",
        "traiNNer-redux, MoSR",
    ),
    NamedNetwork(
        "mosr_t",
        "MoSR",
        {"dim": 48, "n_block": 5, "kernel_size": 7, "expansion_ratio": 1.5},
        2e-4,
        "fast upscaling",
        "traiNNer-redux, MoSR_T",
    ),
    NamedNetwork(
        "safmn",
        "SAFMN",
        {"dim": 36, "n_blocks": 8, "ffn_scale": 2.0},
        1e-3,
        "few parameters and operations",
        "sunny2109/SAFMN, train_DF2K_X4",
    ),
    NamedNetwork(
        "safmn_l",
        "SAFMN",
        {"dim": 128, "n_blocks": 16, "ffn_scale": 2.0},
        3e-4,
        "quality at moderate cost",
        "sunny2109/SAFMN, train_L_DF2K_X4",
    ),
    NamedNetwork(
        "omnisr",
        "OmniSR",
        {"num_feat": 64, "res_num": 5, "block_num": 1, "window_size": 8},
        5e-4,
        "quality with few parameters (transformer)",
        "Francis0625/Omni-SR, train_OmniSR_X4_DIV2K",
    ),
    NamedNetwork(
        "swinir_s",
        "SwinIR",
        {
            "embed_dim": 60,
            "depths": (6, 6, 6, 6),
            "num_heads": (6, 6, 6, 6),
            "window_size": 8,
            "mlp_ratio": 2.0,
            "upsampler": "pixelshuffledirect",
        },
        2e-4,
        "quality with few parameters (transformer)",
        "traiNNer-redux, SwinIR_S",
    ),
    NamedNetwork(
        "dat_light",
        "DAT",
        {
            "embed_dim": 60,
            "depth": (18,),
            "num_heads": (6,),
            "split_size": (8, 32),
            "expansion_factor": 2.0,
            "resi_connection": "3conv",
            "upsampler": "pixelshuffledirect",
        },
        2e-4,
        "quality with few parameters (transformer)",
        "zhengchen1999/DAT, train_DAT_light_x4",
    ),
    NamedNetwork(
        "atd_light",
        "ATD",
        {
            "embed_dim": 48,
            "depths": (6, 6, 6, 6),
            "num_heads": (4, 4, 4, 4),
            "window_size": 16,
            "category_size": 128,
            "num_tokens": 64,
            "reducted_dim": 8,
            "convffn_kernel_size": 7,
            "mlp_ratio": 1.0,
            "upsampler": "pixelshuffledirect",
        },
        2e-4,
        "quality with few parameters (transformer)",
        "LabShuHangGU/Adaptive-Token-Dictionary, 103_ATD_light_SRx4",
    ),
    NamedNetwork(
        "drct_s",
        "DRCT",
        {
            "embed_dim": 48,
            "depths": (6, 6, 6, 6),  # spandrel reads it so from any file; only the length counts
            "num_heads": (6, 6, 6, 6),
            "window_size": 16,
            "mlp_ratio": 2.0,
            "upsampler": "pixelshuffle",
        },
        2e-4,
        "quality at moderate cost (transformer)",
        "size: neosr, drct_s; rate: traiNNer-redux, DRCT",
    ),
    NamedNetwork(
        "rgt_s",
        "RGT",
        {
            "embed_dim": 180,
            "depth": (6, 6, 6, 6, 6, 6),
            "num_heads": (6, 6, 6, 6, 6, 6),
            "split_size": (8, 32),
            "mlp_ratio": 2.0,
            "c_ratio": 0.5,
        },
        2e-4,
        "highest quality, slow (transformer)",
        "traiNNer-redux, RGT_S",
    ),
    NamedNetwork(
        "hat_s",
        "HAT",
        {
            "embed_dim": 144,
            "depths": (6, 6, 6, 6, 6, 6),
            "num_heads": (6, 6, 6, 6, 6, 6),
            "window_size": 16,
            "compress_ratio": 24,
            "squeeze_factor": 24,
            "mlp_ratio": 2.0,
            "upsampler": "pixelshuffle",
        },
        2e-4,
        "highest quality, slow (transformer)",
        "XPixelGroup/HAT, train_HAT-S_SRx2_from_scratch",
    ),
)
NETWORKS: dict[str, NamedNetwork] = {row.name: row for row in _ROWS}


def named_network(name: str) -> NamedNetwork:
    """Return the row of that name. UsageError with the nearest names if there is none."""
    if name not in NETWORKS:
        raise UsageError(unknown_model(name))
    return NETWORKS[name]


def unknown_model(name: str) -> str:
    """Return the error message for a name that no network has."""
    near, all_names = did_you_mean(name, NETWORKS, 2), "for all names, run `python -m trainer models`"
    return f"unknown model {name!r}; " + (f"{near} ({all_names})" if near else all_names)


def default_model(device_type: str) -> str:
    """Return the network to train on a device of this type (`cpu`, `cuda`, `mps`), unless another one is asked for.

    Measured in docs/decisions/034-warm-up-and-rates.md.
    """
    return "ultra_lite" if device_type == "cpu" else "lite"


def typical_network(architecture: str) -> NamedNetwork | None:
    """Return the row of an architecture with the lowest rate, which suits its other sizes; None if there is none."""
    rows = (row for row in NETWORKS.values() if row.architecture == architecture)
    return min(rows, key=lambda row: row.lr, default=None)
