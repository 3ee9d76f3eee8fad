"""The published degradations that the built-in recipes follow, run as they are.

`RealEsrgan` is Real-ESRGAN's own code (realesrgan 0.3.0, basicsr 1.4.2): its data set draws the blur kernels, and its
model computes LR. `bsrgan_light` is BSRGAN's in the light variant of latent diffusion (stable-diffusion-sdkit 2.1.5).
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy
import torch
from basicsr.utils import DiffJPEG, USMSharp
from numpy.typing import NDArray
from realesrgan.data.realesrgan_dataset import RealESRGANDataset
from realesrgan.models.realesrgan_model import RealESRGANModel
from scipy.interpolate import RectBivariateSpline

scipy.finfo = np.finfo  # removed from SciPy since the module below was published, as is `interp2d`
from ldm.modules.image_degradation import bsrgan_light as _bsrgan_light  # noqa: E402

Pixels = NDArray[np.uint8]
Line = NDArray[np.float64]
Codec = Callable[[Pixels, int], Pixels]  # compresses RGB at a quality, and decodes it again

SCALE = 4
HR_PX = 400  # the size at which the data set crops and its model degrades

_KERNELS = ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
_KERNEL_PROBABILITIES = [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]
# The published options for training x4plus, train_realesrgan_x4plus.yml, which the package does not contain.
_DATA_OPTIONS: dict[str, Any] = {
    "use_hflip": False,  # augmentation, which pairs would have in common
    "use_rot": False,
    "blur_kernel_size": 21,
    "kernel_list": _KERNELS,
    "kernel_prob": _KERNEL_PROBABILITIES,
    "sinc_prob": 0.1,
    "blur_sigma": [0.2, 3],
    "betag_range": [0.5, 4],
    "betap_range": [1, 2],
    "blur_kernel_size2": 21,
    "kernel_list2": _KERNELS,
    "kernel_prob2": _KERNEL_PROBABILITIES,
    "sinc_prob2": 0.1,
    "blur_sigma2": [0.2, 1.5],
    "betag_range2": [0.5, 4],
    "betap_range2": [1, 2],
    "final_sinc_prob": 0.8,
}
_MODEL_OPTIONS: dict[str, Any] = {
    "scale": SCALE,
    "gt_size": HR_PX,  # no crop
    "resize_prob": [0.2, 0.7, 0.1],
    "resize_range": [0.15, 1.5],
    "gaussian_noise_prob": 0.5,
    "noise_range": [1, 30],
    "poisson_scale_range": [0.05, 3],
    "gray_noise_prob": 0.4,
    "jpeg_range": [30, 95],
    "second_blur_prob": 0.8,
    "resize_prob2": [0.3, 0.4, 0.3],
    "resize_range2": [0.3, 1.2],
    "gaussian_noise_prob2": 0.5,
    "noise_range2": [1, 25],
    "poisson_scale_range2": [0.05, 2.5],
    "gray_noise_prob2": 0.4,
    "jpeg_range2": [30, 95],
}


class _Degrader(RealESRGANModel):  # type: ignore[misc]
    """The model without its networks: on the CPU, without sharpening, and without the pool that mixes batches."""

    def __init__(self) -> None:
        self.opt = _MODEL_OPTIONS
        self.is_train = True
        self.device = torch.device("cpu")
        self.usm_sharpener = torch.nn.Identity()  # compared by itself

    def _dequeue_and_enqueue(self) -> None:
        pass


class RealEsrgan:
    """Real-ESRGAN's LR of photos of 400 x 400 px, with every parameter drawn per image (batches of one)."""

    def __init__(self, hrs: Sequence[Pixels], folder: Path) -> None:
        names = [f"{number:05}.png" for number in range(len(hrs))]
        for name, hr in zip(names, hrs, strict=True):
            assert hr.shape == (HR_PX, HR_PX, 3), hr.shape
            cv2.imwrite(str(folder / name), cv2.cvtColor(hr, cv2.COLOR_RGB2BGR))
        (folder / "meta_info.txt").write_text("".join(f"{name}\n" for name in names))
        files = {"io_backend": {"type": "disk"}, "dataroot_gt": str(folder), "meta_info": str(folder / "meta_info.txt")}
        self._data = RealESRGANDataset({**_DATA_OPTIONS, **files})
        self._model = _Degrader()

    def degrade(self, seed: int, codec: Codec | None = None) -> list[Pixels]:
        """Return LR of all photos, H x W x 3 uint8, RGB. `codec` takes the place of its approximation of JPEG."""
        self._model.jpeger = _as_jpeger(codec) if codec else DiffJPEG(differentiable=False)
        _seed_all(seed)
        return [self._lr(self._data[number]) for number in range(len(self._data))]

    def _lr(self, sample: dict[str, Any]) -> Pixels:
        self._model.feed_data({name: value[None] for name, value in sample.items() if name != "gt_path"})
        return _as_pixels(self._model.lq[0])


def _as_jpeger(codec: Codec) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def jpeger(images: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
        (image,), (number,) = images, quality.tolist()
        return _as_tensor(codec(_as_pixels(image), round(number)))

    return jpeger


def _as_tensor(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


def _as_pixels(image: torch.Tensor) -> Pixels:
    levels = (255 * image).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous().numpy()


def sharpened(hr: Pixels) -> Pixels:
    """Return HR as Real-ESRGAN sharpens it before it computes LR."""
    return _as_pixels(USMSharp()(_as_tensor(hr))[0])


def bsrgan_light(hrs: Sequence[Pixels], seed: int) -> list[Pixels]:
    """Return LR at a quarter of the size, by the published code of the light variant."""
    _seed_all(seed)
    return [_bsrgan_light.degradation_bsrgan_variant(hr, sf=SCALE)["image"] for hr in hrs]


def _linear(x: Line, y: Line, values: Line) -> Callable[[Line, Line], Line]:
    """Interpolate linearly on a grid, as SciPy's documentation recommends in the place of `interp2d`."""
    spline = RectBivariateSpline(x, y, values.T, kx=1, ky=1)
    return lambda new_x, new_y: spline(new_x, new_y).T


_bsrgan_light.interp2d = _linear


def _seed_all(seed: int) -> None:
    """Seed the three generators from which the published code draws."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
