"""Measure where LR shows what HR shows: displacement and stretch, in fractions of an LR pixel.

The method is phase correlation of overlapping blocks (Welch's method): their cross-power spectra are normalised and
summed, and the displacement is the slope of the sum's phase. Symmetric blur, contrast and brightness do not change the
phase, so sharpness and kernel of LR do not matter. Frequencies weigh as much as HR and LR agree on them, so noise,
compression and aliasing, which increase with frequency, do not either.

Everything is computed in float64 by one thread and rounded, so equal images give equal numbers.
"""

import functools
import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from srshards.imaging.luma import luma_full_range
from srshards.imaging.pixels import Pixels
from srshards.imaging.resample import resize

_Reals = NDArray[np.float64]
_Complexes = NDArray[np.complex128]

_BLOCK_SIZES = (128, 96, 64, 48, 32)  # px; the largest that fits twice into an edge
_MAX_BLOCKS = 6  # per axis, which limits the cost for large images
_MIN_CYCLES = 3.0  # per block: below, illumination and the window dominate
_MAX_FREQUENCY = 0.3  # cycles per px: above, aliasing dominates
_NUM_RINGS = 8  # ranges of frequency in which the agreement of HR and LR is averaged
# Least evidence of a match, in nats. 95 % of mismatched photos are below 60 (real photos, LR of 60 to 720 px).
_LEAST_EVIDENCE = 60.0
# Factors of the two estimates of the standard error, and its least value, from known displacements of real photos:
# overlapping blocks and windows are not independent, and aliased patterns are displaced by other amounts.
_MODEL_FACTOR, _LEAST_ERROR_PX = 3.0, 0.01


class Registration(NamedTuple):
    """How LR's content is displaced against HR's, in LR px.

    `shift` is (right, down) at the centre. `stretch` is the further displacement outwards at the right and lower edge.
    `shift_error` and `stretch_error` are standard errors of the less certain axis; without sufficient evidence, shift
    and stretch are 0 and the errors as large as the displacements that were searched. `correlation`, from -1 to 1, is
    that of the band-pass filtered luma after undoing the shift. `detail` is the RMS of HR's band-pass filtered luma in
    grey levels. `num_independent` is about the number of independent values that were correlated.
    """

    shift: tuple[float, float]
    shift_error: float
    stretch: tuple[float, float]
    stretch_error: float
    correlation: float
    detail: float
    num_independent: float


class _Band(NamedTuple):
    """The frequencies of a block that are used: positions in the flattened spectrum, radians per px (2 x n), ring."""

    positions: NDArray[np.intp]
    frequencies: _Reals
    rings: NDArray[np.intp]
    window: _Reals  # Hann, of unit energy

    def spectra(self, blocks: _Reals) -> _Complexes:
        """Return the windowed spectra of K blocks as K x n, their weighted means removed."""
        means = (blocks * self.window).sum((1, 2)) / self.window.sum()
        spectra = np.fft.rfft2((blocks - means[:, None, None]) * self.window)
        return np.asarray(spectra.reshape(len(blocks), -1)[:, self.positions], np.complex128)

    def ring_means(self, values: _Reals) -> _Reals:
        counts = np.bincount(self.rings, minlength=_NUM_RINGS)
        return np.bincount(self.rings, values, minlength=_NUM_RINGS) / np.maximum(counts, 1)

    def undo(self, shift: _Reals) -> _Complexes:
        """Return the factors that move LR's spectra back by `shift` px."""
        return np.asarray(np.exp(1j * (shift @ self.frequencies)), np.complex128)


def register(hr: Pixels, lr: Pixels) -> Registration:
    """Register LR (H x W x 3 uint8) with HR (scale times as large, scale 2 or more)."""
    height, width = lr.shape[:2]
    band = _band(_block_size(height), _block_size(width))
    block = band.window.shape
    corners = [(y, x) for y in _starts(height, block[0]) for x in _starts(width, block[1])]
    luma = luma_full_range(lr)
    of_hr, of_lr = (band.spectra(_cut(image, corners, block)) for image in (_low_pass(hr, height, width), luma))
    hr_powers, lr_powers = (np.square(spectra.real) + np.square(spectra.imag) for spectra in (of_hr, of_lr))
    hr_power, lr_power = hr_powers.sum(0), lr_powers.sum(0)
    energies = hr_powers.sum(1)
    detail = math.sqrt(2 * energies.mean() / math.prod(block))
    if not (energies.any() and lr_power.any()):
        return _unknown(block, 0.0, detail, 0.0)
    cross = of_hr.conj() * of_lr
    scale = np.sqrt(hr_power * lr_power)
    phases = np.divide(cross, scale, out=np.zeros_like(cross), where=scale > 0)
    num_blocks = float(energies.sum() ** 2 / np.square(energies).sum())  # of equal detail with the same certainty
    num_independent = num_blocks * len(band.positions)

    def correlation(shift: _Reals) -> float:
        return float((cross.sum(0) * band.undo(shift)).real.sum()) / math.sqrt(hr_power.sum() * lr_power.sum())

    total = phases.sum(0)
    shift, coherence = _find_shift(total, band)
    evidence = -num_blocks * float(np.log1p(-np.square(coherence))[band.rings].sum())
    if evidence < _LEAST_EVIDENCE:
        return _unknown(block, correlation(np.zeros(2)), detail, num_independent)
    aligned = phases * (_weights(coherence)[band.rings] * band.undo(shift))
    # Of each block, the gradient of the agreement; of all, its curvature. Both by shift.
    gradients = -aligned.imag @ band.frequencies.T
    curvature = (band.frequencies * aligned.real.sum(0)) @ band.frequencies.T
    if np.linalg.eigvalsh(curvature)[0] <= 0:
        return _unknown(block, correlation(np.zeros(2)), detail, num_independent)
    spread = np.linalg.inv(curvature) @ gradients.T  # how much each block would move the shift
    few = num_blocks / max(num_blocks - 1, 0.25)  # of few blocks, the estimate follows the errors of each
    by_blocks = few * np.sqrt(np.square(spread).sum(1))
    fisher = 2 * num_blocks * np.square(coherence) / (1 - np.square(coherence))
    by_model = np.sqrt(np.diag(np.linalg.inv((band.frequencies * fisher[band.rings]) @ band.frequencies.T)))
    shift_error = float(np.sqrt(np.square(by_blocks) + np.square(_MODEL_FACTOR * by_model)).max())
    centres = np.array([[2 * (x + block[1] / 2) / width - 1, 2 * (y + block[0] / 2) / height - 1] for y, x in corners])
    stretch, stretch_error = _find_stretch(gradients, aligned.real @ np.square(band.frequencies).T, centres)
    return Registration(
        (float(shift[0]), float(shift[1])),
        max(shift_error, _LEAST_ERROR_PX),
        stretch,
        max(few * stretch_error, _LEAST_ERROR_PX),
        correlation(shift),
        detail,
        num_independent,
    )


def _unknown(block: tuple[int, ...], correlation: float, detail: float, num_independent: float) -> Registration:
    reach = max(block) / 4
    return Registration((0.0, 0.0), reach, (0.0, 0.0), reach, correlation, detail, num_independent)


def _low_pass(hr: Pixels, height: int, width: int) -> NDArray[np.float32]:
    """Return HR's luma at LR's size without aliasing, which would be mistaken for a displacement.

    Area averaging alone leaves a third of the aliasing of an image of white noise.
    """
    double = luma_full_range(resize(hr, 2 * height, 2 * width, "area"))
    half_band = np.array([-1, -2, 9, 26, 26, 9, -2, -1], np.float32) / 64  # symmetric about the pair's centre
    filtered = cv2.sepFilter2D(double, cv2.CV_32F, half_band, half_band, anchor=(3, 3), borderType=cv2.BORDER_REFLECT)
    return np.asarray(filtered[::2, ::2], np.float32)


def _block_size(edge: int) -> int:
    return next((size for size in _BLOCK_SIZES if 2 * size <= edge), min(edge, _BLOCK_SIZES[-1]))


def _starts(edge: int, block: int) -> list[int]:
    """Return the first pixels of blocks that cover the edge and overlap by half; fewer if the edge is long."""
    if edge == block:
        return [0]
    count = min(-(-2 * (edge - block) // block) + 1, _MAX_BLOCKS)
    return [(edge - block) * number // (count - 1) for number in range(count)]


def _cut(
    image: NDArray[np.uint8] | NDArray[np.float32], corners: list[tuple[int, int]], block: tuple[int, ...]
) -> _Reals:
    return np.stack([image[y : y + block[0], x : x + block[1]] for y, x in corners]).astype(np.float64)


@functools.lru_cache(maxsize=16)
def _band(height: int, width: int) -> _Band:
    rows, columns = np.meshgrid(np.fft.fftfreq(height), np.fft.rfftfreq(width), indexing="ij")
    radius = np.hypot(rows, columns)
    used = (radius <= _MAX_FREQUENCY) & (np.hypot(rows * height, columns * width) >= _MIN_CYCLES)
    used[:, 0] &= rows[:, 0] > 0  # the other half of this column is its conjugate
    frequencies = 2 * math.pi * np.stack([columns[used], rows[used]])
    rings = np.minimum((radius[used] * (_NUM_RINGS / _MAX_FREQUENCY)).astype(np.intp), _NUM_RINGS - 1)
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    return _Band(np.flatnonzero(used), frequencies, rings, window / math.sqrt(np.square(window).sum()))


def _find_shift(total: _Complexes, band: _Band) -> tuple[_Reals, _Reals]:
    """Return the shift of the greatest agreement, in px, and there the coherence of each ring, from 0 to below 1.

    The nearest integers come from an inverse transform, the fractions from Newton's method; then both are repeated
    with the weights of a maximum likelihood estimate.
    """
    height, width = band.window.shape
    spectrum = np.zeros((height, width // 2 + 1), np.complex128)
    spectrum.ravel()[band.positions] = total
    reach_y, reach_x = height // 4, width // 4
    surface = np.roll(np.fft.irfft2(spectrum, s=(height, width)), (reach_y, reach_x), (0, 1))
    surface = surface[: 2 * reach_y + 1, : 2 * reach_x + 1]
    row, column = divmod(int(surface.argmax()), surface.shape[1])
    shift = _refine(np.array([column - reach_x, row - reach_y], np.float64), total, band)
    coherence = _coherence(total, shift, band)
    for _ in range(3):
        shift = _refine(shift, total * _weights(coherence)[band.rings], band)
        coherence = _coherence(total, shift, band)
    return shift, coherence


def _coherence(total: _Complexes, shift: _Reals, band: _Band) -> _Reals:
    return np.minimum(np.maximum(band.ring_means((total * band.undo(shift)).real), 0), 0.999)


def _weights(coherence: _Reals) -> _Reals:
    return np.asarray(coherence / (1 - np.square(coherence)), np.float64)


def _refine(shift: _Reals, weighted: _Complexes, band: _Band) -> _Reals:
    """Return the maximum of the agreement next to `shift`, or `shift` where there is none."""
    for _ in range(8):
        moved = weighted * band.undo(shift)
        curvature = -(band.frequencies * moved.real) @ band.frequencies.T
        if curvature[0, 0] >= 0 or np.linalg.det(curvature) <= 0:
            break
        step = np.linalg.solve(curvature, band.frequencies @ moved.imag)
        shift = shift + np.clip(step, -0.5, 0.5)
        if np.abs(step).max() < 1e-6:
            break
    return shift


def _find_stretch(gradients: _Reals, curvatures: _Reals, centres: _Reals) -> tuple[tuple[float, float], float]:
    """Return the displacement at the edges and its standard error, in px: a line through those of the blocks.

    All arguments are K x 2: of each block by axis, the gradient and the curvature of the agreement, and the centre
    from -1 to 1.
    """
    leverage = (curvatures * np.square(centres)).sum(0)
    if (leverage <= 0).any():  # a single block on an axis
        return (0.0, 0.0), max(_BLOCK_SIZES) / 4
    x, y = (gradients * centres).sum(0) / leverage
    residuals = gradients - curvatures * centres * np.array([x, y])
    errors = np.sqrt(np.square(residuals * centres).sum(0)) / leverage
    return (float(x), float(y)), float(errors.max())
