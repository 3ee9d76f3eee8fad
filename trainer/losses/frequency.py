"""Losses of the two-dimensional Fourier transform, orthonormal, of each channel.

It is linear: the transform of output - target is the difference of the spectra. Only the half that `rfft2` returns is
computed; the other has the same absolute values.
"""

import torch
from torch import Tensor


def fft(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean of |Re D| and |Im D| over all frequencies, D the spectrum of output - target."""
    return _mean_of_all(_spectrum(output - target).abs().sum(-1), output) / 2


def focal_frequency(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean of w |D|² over all frequencies, D the spectrum of output - target (Jiang et al., 2021), alpha 1.

    The weight w is |D| divided by its maximum over the frequencies of the image and channel, and constant: it has no
    gradient. As in the authors' code with default settings.
    """
    spectrum = _spectrum(output - target)
    power = (spectrum * spectrum).sum(-1)
    magnitude = power.detach().sqrt()
    maximum = magnitude.amax((2, 3), keepdim=True).clamp(min=torch.finfo(magnitude.dtype).tiny)
    return _mean_of_all(magnitude / maximum * power, output)


def _spectrum(images: Tensor) -> Tensor:
    """Return the real and imaginary parts, N x C x H x (W/2 + 1) x 2."""
    return torch.view_as_real(torch.fft.rfft2(images, norm="ortho"))


def _mean_of_all(values: Tensor, images: Tensor) -> Tensor:
    """Return the mean over all frequencies of the images, of which those at 0 and W/2 have no other half."""
    repeated = values[..., 1 : (images.shape[3] + 1) // 2]
    return (values.sum() + repeated.sum()) / images.numel()
