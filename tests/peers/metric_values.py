"""Prints, as JSON, perceptual metrics of images by the trainer and by the code of the authors of LPIPS and DISTS.

Runs in a process of its own: it needs the real torchvision, in the place of which the tests of BasicSR have a stand-in.
LPIPS and DISTS have their published weights on backbones with random weights; all weights of TOPIQ are random.
"""

import hashlib
import json
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from scipy import io
from torch import Tensor, nn

# Operators of torchvision's compiled part, which are registered but not called when it is imported. Its builds of pip
# need a PyTorch for CUDA.
_operators = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import DISTS_pytorch  # noqa: E402
import lpips  # noqa: E402
import pyiqa.default_model_configs  # noqa: E402
from pyiqa.archs import dists_arch, lpips_arch, niqe_arch, topiq_arch  # noqa: E402
from torchvision import models  # noqa: E402

from trainer.evaluation.perceptual import load_metrics  # noqa: E402
from trainer.metrics_table import METRICS, PERCEPTUAL  # noqa: E402
from trainer.models import vgg19  # noqa: E402
from trainer.weights_table import VGG19  # noqa: E402

CPU = torch.device("cpu")
PYIQA_NAMES = {"lpips": "lpips", "dists": "dists", "topiq": "topiq_fr", "niqe": "niqe"}


def main(images: str, border: str, folder: str) -> None:
    """Compare the images in an .npz file, inside a border. `folder` gets the weights."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    socket.socket.connect = _refuse  # type: ignore[method-assign]
    weights = Path(folder, "checkpoints")  # also a hub cache, from which the authors' code loads the backbones
    weights.mkdir()
    write_weights(weights)
    outputs, targets = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in np.load(images).values())
    metrics = load_metrics(PERCEPTUAL, CPU, weights)
    values = metrics.measure(outputs, targets, int(border))
    inside = slice(int(border), -int(border))
    cropped = [one[..., inside, inside].float() / 255 for one in (outputs, targets)]
    torch.hub.set_dir(folder)
    configs = pyiqa.default_model_configs.DEFAULT_CONFIGS
    result = {
        "values": dict(zip(metrics.names, values.T.tolist(), strict=True)),
        "repeated": metrics.measure(outputs, targets, int(border)).T.tolist(),
        "by authors": by_authors(*cropped, weights),
        "addresses": addresses(),
        "lower is better": {
            name: configs[of_pyiqa].get("lower_better", False) for name, of_pyiqa in PYIQA_NAMES.items()
        },
        "without target": [name for name, of_pyiqa in PYIQA_NAMES.items() if configs[of_pyiqa]["metric_mode"] == "NR"],
        "vgg19": vgg19_difference(cropped[0][:, :, :64, :64], weights),
    }
    print(json.dumps(result))


def _refuse(*_: Any) -> NoReturn:
    raise AssertionError("metrics must not use the network")


def write_weights(folder: Path) -> None:
    """Write what METRICS names, and replace the digests of random weights in it."""
    random = {
        "alexnet-owt-7be5be79.pth": _backbone(models.alexnet()),
        "vgg16-397923af.pth": _backbone(models.vgg16(init_weights=False)),
        "cfanet_fr_kadid_res50-2c4cc61d.pth": {
            "params": topiq_arch.CFANet(backbone_pretrain=False, pretrained=False).state_dict()
        },
    }
    for name, state in random.items():
        torch.save(state, folder / name)
    published = {
        "LPIPS_v0.1_alex-df73285e.pth": Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth",
        "DISTS_weights-f5e65c96.pth": Path(DISTS_pytorch.__file__).parent / "weights.pt",
    }
    for name, path in published.items():
        (folder / name).write_bytes(path.read_bytes())
    basicsr = find_spec("basicsr")  # not imported: it needs an older torchvision
    assert basicsr is not None and basicsr.origin is not None
    niqe = np.load(Path(basicsr.origin).parent / "metrics" / "niqe_pris_params.npz")
    parameters = {"mu_prisparam": niqe["mu_pris_param"], "cov_prisparam": niqe["cov_pris_param"]}
    io.savemat(folder / "niqe_modelparameters.mat", parameters)
    for name, metric in METRICS.items():
        files = [
            replace(file, sha256=hashlib.sha256((folder / file.name).read_bytes()).hexdigest()[:8])
            if file.name in random
            else file
            for file in metric.files
        ]
        METRICS[name] = replace(metric, files=tuple(files))


def _backbone(network: nn.Module) -> dict[str, Tensor]:
    """Return random convolutions, and a classifier of zeros that take no space in a file."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return {
        name: torch.zeros(1).expand(tensor.shape) if name.startswith("classifier") else tensor
        for name, tensor in network.state_dict().items()
    }


def by_authors(outputs: Tensor, targets: Tensor, weights: Path) -> dict[str, list[float]]:
    """Return the metrics by the authors' code, and TOPIQ by pyiqa's network, of images in [0, 1]."""
    dists = DISTS_pytorch.DISTS(load_weights=False)
    state = torch.load(weights / "DISTS_weights-f5e65c96.pth")
    dists.alpha.data, dists.beta.data = state["alpha"], state["beta"]
    networks = {
        "lpips": lpips.LPIPS(net="alex", version="0.1", verbose=False),
        "dists": dists,
        "topiq": topiq_arch.CFANet(backbone_pretrain=False, pretrained=False),
    }
    networks["topiq"].load_state_dict(torch.load(weights / "cfanet_fr_kadid_res50-2c4cc61d.pth")["params"])
    arguments = {"lpips": {"normalize": True}}  # from [0, 1]
    with torch.no_grad():
        return {
            name: [
                float(network.eval()(output[None], target[None], **arguments.get(name, {})))
                for output, target in zip(outputs, targets, strict=True)
            ]
            for name, network in networks.items()
        }


def addresses() -> dict[str, str]:
    """Return the addresses from which pyiqa and torchvision would download, by file name."""
    urls = [
        lpips_arch.default_model_urls["0.1_alex"],
        dists_arch.default_model_urls["url"],
        topiq_arch.default_model_urls["cfanet_fr_kadid_res50"],
        niqe_arch.default_model_urls["url"],
        models.AlexNet_Weights.IMAGENET1K_V1.url,
        models.VGG16_Weights.IMAGENET1K_V1.url,
        models.VGG19_Weights.IMAGENET1K_V1.url,
    ]
    return {url.rpartition("/")[2]: url for url in urls}


def vgg19_difference(images: Tensor, folder: Path) -> float:
    """Return the largest difference between features of VGG19Features and of torchvision's layers."""
    layers = models.vgg.make_layers(models.vgg.cfgs["E"])
    torch.save({f"features.{name}": tensor for name, tensor in layers.state_dict().items()}, folder / VGG19.name)
    features = vgg19.load_vgg19(folder / VGG19.name, ["conv2_2", "relu5_4"])(images)
    normalise = models.VGG19_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (normalise.mean, normalise.std))
    return max(_differences(layers, (images - mean) / std, {7: features["conv2_2"], 35: features["relu5_4"]}))


def _differences(layers: nn.Sequential, x: Tensor, features: dict[int, Tensor]) -> Iterator[float]:
    with torch.no_grad():
        for number, layer in enumerate(layers):
            x = layer(x)
            if number in features:
                yield float((x - features[number]).abs().max() / x.abs().max())


if __name__ == "__main__":
    main(*sys.argv[1:])
