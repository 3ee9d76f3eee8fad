"""Register LR with HR to a fraction of a pixel: displacement and stretch, in LR px.

The method is phase correlation of overlapping blocks (Welch's method): their cross-power spectra are normalised and
summed, and the displacement is the slope of the sum's phase. Symmetric blur, contrast and brightness do not change the
phase, so sharpness and kernel of LR do not matter. Frequencies weigh as much as HR and LR agree on them, so noise,
compression and aliasing, which increase with frequency, do not either.

Everything is computed in float64 by one thread (einsum instead of BLAS), so equal images give equal numbers.
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
_MAX_BLOCKS = 4  # per axis, which limits the cost for large images
_MIN_CYCLES = 3.0  # per block: below, illumination and the window dominate
_MAX_FREQUENCY = 0.3  # cycles per px: above, aliasing dominates
_NUM_RINGS = 8  # ranges of frequency in which the agreement of HR and LR is averaged
# Least evidence of a match, in nats. 95 % of mismatched photos are below 60 (real photos, LR of 60 to 720 px).
_LEAST_EVIDENCE = 75.0
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
        """Return the windowed spectra of K blocks as K x n, their weighted means removed; uniform blocks give 0."""
        means = np.einsum("kyx,yx->k", blocks, self.window) / self.window.sum()
        spectra = np.fft.rfft2((blocks - means[:, None, None]) * self.window)
        used = spectra.reshape(len(blocks), -1)[:, self.positions]
        return np.asarray(np.round(used, 6), np.complex128)  # less than 1e-6 levels are rounding errors

    def ring_means(self, values: _Reals) -> _Reals:
        counts = np.bincount(self.rings, minlength=_NUM_RINGS)
        return np.bincount(self.rings, values, minlength=_NUM_RINGS) / np.maximum(counts, 1)

    def undo(self, shift: _Reals) -> _Complexes:
        """Return the factors that move LR's spectra back by `shift` px."""
        return np.asarray(np.exp(1j * np.einsum("a,an->n", shift, self.frequencies)), np.complex128)

    def moments(self, values: _Reals) -> _Reals:
        """Return the sums of values times each product of two frequencies, as 2 x 2."""
        return np.asarray(np.einsum("an,bn,n->ab", self.frequencies, self.frequencies, values), np.float64)


def register(hr: Pixels, lr: Pixels) -> Registration:
    """Register LR (H x W x 3 uint8) with HR (an integer times as large)."""
    height, width = lr.shape[:2]
    block = _block_size(height), _block_size(width)
    corners = [(y, x) for y in _starts(height, block[0]) for x in _starts(width, block[1])]
    centres = [(2 * (x + block[1] / 2) / width - 1, 2 * (y + block[0] / 2) / height - 1) for y, x in corners]
    hr_blocks = _cut(_low_pass(hr, height, width), corners, block)
    lr_blocks = _cut(luma_full_range(lr), corners, block)
    return _registration(hr_blocks, lr_blocks, _band(*block), np.array(centres))


def _registration(hr_blocks: _Reals, lr_blocks: _Reals, band: _Band, centres: _Reals) -> Registration:
    of_hr, of_lr = band.spectra(hr_blocks), band.spectra(lr_blocks)
    hr_powers = np.square(of_hr.real) + np.square(of_hr.imag)
    hr_power, lr_power = hr_powers.sum(0), (np.square(of_lr.real) + np.square(of_lr.imag)).sum(0)
    detail = math.sqrt(2 * hr_power.sum() / hr_blocks.size)
    num_blocks = _effective_number(hr_powers.sum(1))
    cross = of_hr.conj() * of_lr
    norm = np.sqrt(hr_power * lr_power)
    phases = np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 0)

    def correlation(shift: _Reals) -> float:
        energy = float(hr_power.sum()) * float(lr_power.sum())
        return float((cross.sum(0) * band.undo(shift)).real.sum()) / math.sqrt(energy) if energy else 0.0

    def result(shift: _Reals, shift_error: float, stretch: _Reals, stretch_error: float) -> Registration:
        return Registration(
            (float(shift[0]), float(shift[1])),
            max(shift_error, _LEAST_ERROR_PX),
            (float(stretch[0]), float(stretch[1])),
            max(stretch_error, _LEAST_ERROR_PX),
            correlation(shift),
            detail,
            num_blocks * len(band.positions),
        )

    shift, coherence = _find_shift(phases.sum(0), band)
    evidence = -num_blocks * float(np.log1p(-np.square(coherence))[band.rings].sum())
    aligned = phases * (_weights(coherence)[band.rings] * band.undo(shift))
    curvature = band.moments(aligned.real.sum(0))
    if evidence < _LEAST_EVIDENCE or np.linalg.eigvalsh(curvature)[0] <= 0:
        reach = max(band.window.shape) / 4
        return result(np.zeros(2), reach, np.zeros(2), reach)
    # The gradient of each block's agreement by the shift: how much the block would move it.
    gradients = -np.einsum("kn,an->ka", aligned.imag, band.frequencies)
    few = num_blocks / max(num_blocks - 1, 0.25)  # with few blocks, the estimate follows the errors of each
    by_blocks = few * np.sqrt(np.square(np.linalg.inv(curvature) @ gradients.T).sum(1))
    fisher = 2 * num_blocks * np.square(coherence) / (1 - np.square(coherence))
    by_model = np.sqrt(np.diag(np.linalg.inv(band.moments(fisher[band.rings]))))
    shift_error = float(np.sqrt(np.square(by_blocks) + np.square(_MODEL_FACTOR * by_model)).max())
    curvatures = np.einsum("kn,an->ka", aligned.real, np.square(band.frequencies))
    stretch, stretch_error = _find_stretch(gradients, curvatures, centres)
    return result(shift, shift_error, stretch, few * stretch_error)


def _effective_number(energies: _Reals) -> float:
    """Return the number of blocks of equal detail that tell as much as these."""
    return float(energies.sum() ** 2 / np.square(energies).sum()) if energies.any() else 0.0


def _low_pass(hr: Pixels, height: int, width: int) -> NDArray[np.float32]:
    """Return HR's luma at LR's size without aliasing, which would be mistaken for a displacement.

    With area averaging alone, the displacement of `nearest` at 2x, 0.25 px, would be measured as 0.235 px.
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
        curvature = -band.moments(moved.real)
        if curvature[0, 0] >= 0 or np.linalg.det(curvature) <= 0:
            break
        step = np.linalg.solve(curvature, np.einsum("an,n->a", band.frequencies, moved.imag))
        shift = shift + np.clip(step, -0.5, 0.5)
        if np.abs(step).max() < 1e-6:
            break
    return shift


def _find_stretch(gradients: _Reals, curvatures: _Reals, centres: _Reals) -> tuple[_Reals, float]:
    """Return the displacement at the edges and its standard error, in px: a line through those of the blocks.

    All arguments are K x 2: of each block by axis, the gradient and the curvature of the agreement, and the centre
    from -1 to 1.
    """
    leverage = (curvatures * np.square(centres)).sum(0)
    if (leverage <= 0).any():  # a single block on an axis
        return np.zeros(2), max(_BLOCK_SIZES) / 4
    stretch = (gradients * centres).sum(0) / leverage
    residuals = gradients - curvatures * centres * stretch
    errors = np.sqrt(np.square(residuals * centres).sum(0)) / leverage
    return stretch, float(errors.max())
