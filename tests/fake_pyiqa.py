"""Takes the place of the package pyiqa where its real parts cannot be had: networks as small functions.

`make test-peers` runs the real one.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

from trainer.metrics_table import PERCEPTUAL

# pyiqa/__init__.py. `create_metric` prints, logs, warns, draws random numbers and loads as the real one does.
PACKAGE = """
import logging, os, warnings
import torch

__version__ = "0.1.16"
calls = []


def create_metric(name, device, pretrained_model_path, **options):
    print("Loading pretrained model")
    logging.getLogger("pyiqa").warning("is created")
    warnings.warn("deprecated")
    torch.randn(1)
    cache = os.path.join(torch.hub.get_dir(), "checkpoints")
    backbone = os.listdir(cache) if name in ("lpips", "dists") else []
    files = [pretrained_model_path, *(os.path.join(cache, file) for file in backbone)]
    loaded = [torch.load(file, weights_only=False)["value"] for file in files]
    calls.append({"name": name, "device": device, "loaded": [float(one) for one in loaded], **options})
    return Metric(Network(name))


class Metric:
    def __init__(self, net):
        self.net = net


class Network(torch.nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, output, *target):
        calls.append((self.name, tuple(output.shape), output.is_contiguous(), output.is_inference(), len(target)))
        if self.name == "niqe":
            if output.amin() == output.amax():
                warnings.warn("cov(): degrees of freedom")
                return torch.linalg.svd(torch.full((1, 2, 2), torch.nan))
            return output.mean(dtype=torch.float64)
        if output.amax() > 0.999:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes")
        return (output - target[0]).mean().view(1, 1)
"""


def write_pyiqa(
    folder: Path, package: str = PACKAGE, archs: tuple[str, ...] = ("lpips", "dists", "topiq", "niqe")
) -> None:
    """Write the package into `folder`, which has to be on sys.path."""
    inside = folder / "pyiqa" / "archs"
    inside.mkdir(parents=True)
    (folder / "pyiqa" / "__init__.py").write_text(package)
    (inside / "__init__.py").touch()
    for arch in archs:
        (inside / f"{arch}_arch.py").touch()


def use_pyiqa(folder: Path, monkeypatch: pytest.MonkeyPatch, *args: Any) -> None:
    """Write the package into `folder`, with the arguments of `write_pyiqa`, and let the test import it from there."""
    write_pyiqa(folder, *args)
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyiqa"]:
        monkeypatch.delitem(sys.modules, name)
    # What the test imports is removed afterwards, too.
    for name in ("pyiqa", "pyiqa.archs", *(f"pyiqa.archs.{metric}_arch" for metric in PERCEPTUAL)):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
