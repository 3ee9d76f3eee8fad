"""The published weights files that metrics and losses need. Does not import PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightsFile:
    """A published file with the weights of a network."""

    name: str
    url: str
    size: str  # for messages
    sha256: str  # first digits, "" if unknown
    cache: str  # folder below PyTorch's hub cache in which the library that downloads the file keeps it


def _pyiqa(name: str, size: str, sha256: str) -> WeightsFile:
    url = f"https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/{name}"
    return WeightsFile(name, url, size, sha256, cache="pyiqa")


def _torchvision(name: str, size: str, sha256: str) -> WeightsFile:
    return WeightsFile(name, f"https://download.pytorch.org/models/{name}", size, sha256, cache="checkpoints")


ALEXNET = _torchvision("alexnet-owt-7be5be79.pth", "244 MB", "7be5be79")
VGG16 = _torchvision("vgg16-397923af.pth", "553 MB", "397923af")
VGG19 = _torchvision("vgg19-dcbb9e9d.pth", "575 MB", "dcbb9e9d")  # VGG19_Weights.IMAGENET1K_V1
LPIPS = _pyiqa("LPIPS_v0.1_alex-df73285e.pth", "6 kB", "df73285e")
DISTS = _pyiqa("DISTS_weights-f5e65c96.pth", "12 kB", "f5e65c96")
TOPIQ = _pyiqa("cfanet_fr_kadid_res50-2c4cc61d.pth", "145 MB", "2c4cc61d")
NIQE = _pyiqa("niqe_modelparameters.mat", "10 kB", "")

WEIGHTS_FILES = {file.name: file for file in (ALEXNET, VGG16, VGG19, LPIPS, DISTS, TOPIQ, NIQE)}
