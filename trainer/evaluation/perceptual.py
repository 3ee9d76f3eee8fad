"""Perceptual metrics (LPIPS, DISTS, TOPIQ, NIQE), computed by the library pyiqa from weights files on this machine."""

import contextlib
import importlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from srshards.errors import UsageError
from srshards.extras import install_command
from srshards.process.shortages import is_out_of_memory
from srshards.terminal.sizes import format_bytes
from trainer.evaluation.metrics import check_images
from trainer.inference.tile_memory import free_bytes
from trainer.metrics_table import METRICS
from trainer.models.weights_files import find_files, listed

_FORCE_SAFE_LOADING = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # of torch.load; pyiqa would run code that a file contains


@dataclass(frozen=True)
class _Recipe:
    """How pyiqa computes a metric, and the memory that it needs per px of an image, measured on a CPU.

    `module` defines the network; imported first, it spares pyiqa a search through all of its modules.
    """

    name: str
    module: str
    bytes_per_px: int
    options: Mapping[str, Any] = field(default_factory=dict)


_RECIPES = {
    "lpips": _Recipe("lpips", "lpips_arch", 350),  # AlexNet, version 0.1
    "dists": _Recipe("dists", "dists_arch", 1750),
    # Trained on KADID-10k. Its file contains the backbone, too.
    "topiq": _Recipe("topiq_fr", "topiq_arch", 1000, {"backbone_pretrain": False}),
    "niqe": _Recipe("niqe", "niqe_arch", 450),
}


class PerceptualMetrics:
    """Computes metrics on one device. Made by `load_metrics`."""

    def __init__(self, networks: Mapping[str, nn.Module], device: torch.device) -> None:
        self.names = tuple(networks)
        self._networks = networks
        self._device = device

    @torch.inference_mode()
    def measure(self, outputs: Tensor, targets: Tensor, border: int) -> Tensor:
        """Compare images after cropping `border` px on every side, as `trainer.evaluation.metrics.measure` does.

        Both are N x 3 x H x W uint8 RGB on any device. Returns N x len(names) float64 on the metrics' device, in the
        order of `names`; NaN where a metric is not defined for an image, such as NIQE for one of a single colour.
        Images are processed one by one, so that a value does not depend on the other images.

        ValueError for other shapes or types. UsageError for images smaller than a metric's `min_px` inside the border,
        or larger than the memory allows.
        """
        check_images(outputs, targets, border)
        inside = slice(border, -border or None)
        pairs = zip(*(torch.split(images[:, :, inside, inside], 1) for images in (outputs, targets)), strict=True)
        # As the published figures, in float32: not rounded to TF32. Warnings come with values that are NaN.
        float32 = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with float32, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.stack([self._measure(*map(self._on_device, pair)) for pair in pairs])

    def _on_device(self, image: Tensor) -> Tensor:
        # Contiguous, because kernels for other memory layouts round differently.
        return image.to(self._device, torch.float32).div_(255).contiguous()

    def _measure(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the metrics of one 1 x 3 x H x W image in [0, 1]."""
        return torch.stack([self._value(name, output, target) for name in self.names])

    def _value(self, name: str, output: Tensor, target: Tensor) -> Tensor:
        height, width = output.shape[2:]
        size = f"{width} x {height} px"
        if min(height, width) < METRICS[name].min_px:
            raise UsageError(
                f"{name} needs at least {METRICS[name].min_px} px inside the border, not {size}; omit it, or evaluate "
                "larger images"
            )
        needed, free = _RECIPES[name].bytes_per_px * height * width, free_bytes(self._device)
        advice = "omit it, evaluate smaller images, or close other programs"
        if needed > free:
            raise UsageError(
                f"{name} of {size} needs about {format_bytes(needed)} of memory on {self._device}, of which "
                f"{format_bytes(free)} are free; {advice}"
            )
        images = (output, target) if METRICS[name].needs_target else (output,)
        try:
            value: Tensor = self._networks[name](*images)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # of NIQE, if no part of the image has any contrast
            return torch.full((), torch.nan, dtype=torch.float64, device=self._device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UsageError(f"out of memory: {name} of {size} on {self._device}; {advice}") from error
        return value.double().reshape(())


def load_metrics(names: Sequence[str], device: torch.device, weights: Path | None) -> PerceptualMetrics:
    """Set up the metrics `names`, each from `trainer.metrics_table.PERCEPTUAL`. Nothing is downloaded.

    Their files come from `weights`, which is a folder that contains them or one of them, else from the caches to which
    pyiqa and torchvision download. UsageError if pyiqa cannot be used, or files are missing (`find_files`).
    """
    require_pyiqa(names)
    files = find_files({name: METRICS[name].files for name in names}, weights, "--metric-weights")
    return PerceptualMetrics(load_networks(names, files, device), device)


def require_pyiqa(names: Sequence[str]) -> None:
    """Raise UsageError if pyiqa is not installed, which computes `names`."""
    if find_spec("pyiqa") is None:
        raise UsageError(f"pyiqa is not installed, which computes {listed(names)}; {install_command('pyiqa')}")


def load_networks(names: Sequence[str], files: Mapping[str, Path], device: torch.device) -> dict[str, nn.Module]:
    """Return pyiqa's networks for the metrics `names`, with weights from `files` (`find_files`), in evaluation mode.

    They map N x 3 x H x W RGB in [0, 1] of output and target to a value per image. UsageError if pyiqa cannot be
    imported, or cannot load a file.
    """
    with _quiet(), _safe_loading(), torch.random.fork_rng(devices=[]):  # pyiqa draws the weights before it loads them
        pyiqa = _import(names)
        return {name: _network(pyiqa, name, files, device) for name in names}


def _import(names: Sequence[str]) -> Any:
    """Import pyiqa with its modules for the metrics. UsageError if it lacks a package, or one does not fit."""
    try:
        pyiqa = importlib.import_module("pyiqa")
        for name in names:
            importlib.import_module(f"pyiqa.archs.{_RECIPES[name].module}")
    except Exception as error:
        raise UsageError(
            f"cannot import pyiqa: {_first_line(error)}; check that torchvision fits PyTorch {torch.__version__}, and "
            f"{install_command('pyiqa')}"
        ) from error
    return pyiqa


def _network(pyiqa: Any, name: str, files: Mapping[str, Path], device: torch.device) -> nn.Module:
    """Return the network of pyiqa that computes a metric, in evaluation mode on the device."""
    recipe = _RECIPES[name]
    paths = {file.cache: files[file.name] for file in METRICS[name].files}
    options = {"pretrained_model_path": str(paths["pyiqa"]), **recipe.options}
    try:
        with _hub_folder(paths.get("checkpoints")):
            network: nn.Module = pyiqa.create_metric(recipe.name, device=device, **options).net
    except Exception as error:
        if is_out_of_memory(error):
            raise UsageError(f"out of memory for {name} on {device}; omit it, or close other programs") from error
        raise UsageError(
            f"pyiqa {pyiqa.__version__} cannot load {name} from {' and '.join(map(str, paths.values()))}: "
            f"{_first_line(error)}; delete and fetch these files again, or {install_command('pyiqa')}"
        ) from error
    return network


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what pyiqa prints and logs about loading, which would be mixed with the output of a command."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _hub_folder(checkpoint: Path | None) -> Iterator[None]:
    """Let torchvision find a weights file as if it had downloaded it."""
    if checkpoint is None:
        yield
        return
    previous = torch.hub.get_dir()
    with TemporaryDirectory() as folder:
        Path(folder, "checkpoints").mkdir()
        Path(folder, "checkpoints", checkpoint.name).symlink_to(checkpoint.absolute())
        torch.hub.set_dir(folder)
        try:
            yield
        finally:
            torch.hub.set_dir(previous)


@contextlib.contextmanager
def _safe_loading() -> Iterator[None]:
    """Load nothing but tensors from files."""
    before = os.environ.get(_FORCE_SAFE_LOADING)
    os.environ[_FORCE_SAFE_LOADING] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE_SAFE_LOADING]
        else:
            os.environ[_FORCE_SAFE_LOADING] = before
