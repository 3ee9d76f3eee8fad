"""Perceptual metrics (LPIPS, DISTS, TOPIQ, NIQE), computed by the library pyiqa from weights files on this machine."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from srshards.errors import UsageError
from srshards.extras import install_command
from trainer.metrics_table import METRICS, MetricFile


class PerceptualMetrics:
    """Computes the metrics `names`, each from `trainer.metrics_table.PERCEPTUAL`, on one device."""

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = tuple(names)

    def measure(self, outputs: Tensor, targets: Tensor, border: int) -> Tensor:
        """Compare images after cropping `border` px on every side, as `trainer.evaluation.metrics.measure` does.

        Both are N x 3 x H x W uint8 RGB on the device. Returns N x len(names) float64 there, in the order of `names`;
        NaN where a metric is not defined for an image. The result for an image does not depend on the others.
        ValueError for other shapes or types, or images smaller than a metric's `min_px` inside the border.
        """
        raise NotImplementedError


def load_metrics(names: Sequence[str], device: torch.device, weights: Path | None) -> PerceptualMetrics:
    """Set up the metrics `names`, each from `trainer.metrics_table.PERCEPTUAL`. Nothing is downloaded.

    Their files come from `weights`, which is a folder that contains them or one of them, else from the caches in which
    pyiqa and torchvision keep their downloads. UsageError if pyiqa or a file is missing, with the commands to get them.
    """
    if find_spec("pyiqa") is None:
        raise UsageError(f"{' and '.join(names)} require pyiqa, which is not installed; {install_command('pyiqa')}")
    missing = [file for name in names for file in METRICS[name].files if _find(file, weights) is None]
    if missing:
        raise UsageError(", ".join(file.name for file in missing))
    return PerceptualMetrics(names, device)


def _find(file: MetricFile, weights: Path | None) -> Path | None:
    candidates = [Path(torch.hub.get_dir(), file.cache, file.name)]
    if weights is not None:
        candidates.insert(0, weights / file.name if weights.is_dir() else weights)
    return next((path for path in candidates if path.name == file.name and path.is_file()), None)
