"""The rates of all ways as bars on a logarithmic scale, this project's in colour. Drawn with Pillow alone."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

_SHARPNESS = 2  # px drawn per px of the layout
_WIDTH, _MARGIN, _LABELS, _VALUES = 1000, 36, 230, 220
_ROW, _BAR, _TOP, _BOTTOM = 32, 18, 112, 54
_INK, _FAINT, _LINES, _PAPER = "#1f2328", "#656d76", "#e4e8ec", "#ffffff"
_OURS, _OURS_SOFT, _PEER, _PEER_SOFT = "#0f6fde", "#9cc7fa", "#8a939d", "#cfd5db"


class Bar(NamedTuple):
    """A way's medians in patches per second; `copied` is None when that was not measured."""

    name: str
    untouched: float
    copied: float | None
    is_ours: bool


def bars_of(ways: Mapping[str, Any]) -> list[Bar]:
    """The fastest first. Of this project's ways those with 2 workers and 192 px; every peer that was measured."""
    bars = []
    for name, found in ways.items():
        is_ours = name.startswith("ours ")
        if "unavailable" in found or (is_ours and (found["workers"] != 2 or found["patch_px"] != 192)):
            continue
        rates = found["patches_per_second"]
        copied = rates["copied"]["median"] if "copied" in rates else None
        label = name.replace(", 2 workers", "").replace("ours ", "this project: ") if is_ours else name
        bars.append(Bar(label, rates["untouched"]["median"], copied, is_ours))
    return sorted(bars, key=lambda bar: bar.untouched, reverse=True)


def draw_rates(path: Path, ways: Mapping[str, Any]) -> None:
    """Write the PNG. The whole bar is the batches left untouched, its dark part the batches copied out."""
    bars = bars_of(ways)
    if not bars:
        raise ValueError("there is no rate to draw")
    low = 10.0 ** math.floor(math.log10(min(min(bar.untouched, bar.copied or bar.untouched) for bar in bars)))
    high = 10.0 ** math.ceil(math.log10(max(bar.untouched for bar in bars)) + 1e-9)
    canvas = _Canvas(_TOP + _ROW * len(bars) + _BOTTOM, low, high)
    canvas.text(_MARGIN, 34, "Patches per second that reach the training process", 24, _INK, bold=True)
    subtitle = "batches of 16 pairs of 192 px patches, 2 workers, page cache warm, median; logarithmic scale"
    canvas.text(_MARGIN, 64, subtitle, 14, _FAINT)
    canvas.legend(_MARGIN, 88)
    canvas.grid(_TOP, _TOP + _ROW * len(bars))
    for row, bar in enumerate(bars):
        canvas.bar(_TOP + _ROW * row + _ROW / 2, bar)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.image.save(path, optimize=True)


class _Canvas:
    """Layout px from the top left; the axis runs from `low` to `high` patches per second."""

    def __init__(self, height: int, low: float, high: float) -> None:
        self.image = Image.new("RGB", (_WIDTH * _SHARPNESS, height * _SHARPNESS), _PAPER)
        self._draw = ImageDraw.Draw(self.image)
        self._low, self._high = low, high

    def text(
        self, x: float, y: float, text: str, size: int, colour: str, anchor: str = "lm", bold: bool = False
    ) -> None:
        """Text whose anchor (Pillow's) is at (x, y)."""
        font = ImageFont.load_default(size * _SHARPNESS)
        stroke = 1 if bold else 0  # Pillow's own font has one weight
        self._draw.text(self._at(x, y), text, colour, font, anchor, stroke_width=stroke, stroke_fill=colour)

    def legend(self, x: float, y: float) -> None:
        """What the two lengths of a bar mean."""
        for colours, what in (
            ((_OURS_SOFT, _PEER_SOFT), "batch left untouched"),
            ((_OURS, _PEER), "copied out by the training process"),
        ):
            for number, colour in enumerate(colours):
                self._box(x + 16 * number, y - 6, x + 16 * number + 12, y + 6, colour)
            self.text(x + 38, y, what, 14, _INK)
            x += 220

    def grid(self, top: float, bottom: float) -> None:
        """A line per power of ten, with its figure below."""
        for power in range(round(math.log10(self._low)), round(math.log10(self._high)) + 1):
            x = self._x(10.0**power)
            self._box(x - 0.5, top, x + 0.5, bottom, _LINES)
            self.text(x, bottom + 18, f"{10**power:,}", 13, _FAINT, "mm")

    def bar(self, y: float, bar: Bar) -> None:
        """Name, bar and figure."""
        strong, soft = (_OURS, _OURS_SOFT) if bar.is_ours else (_PEER, _PEER_SOFT)
        left, end = self._x(self._low), self._x(bar.untouched)
        self.text(left - 12, y, bar.name, 15, _OURS if bar.is_ours else _INK, "rm", bold=bar.is_ours)
        self._box(left, y - _BAR / 2, end, y + _BAR / 2, soft if bar.copied else strong)
        if bar.copied:
            self._box(left, y - _BAR / 2, self._x(bar.copied), y + _BAR / 2, strong)
            end = max(end, self._x(bar.copied))
        figures = f"{bar.untouched:,.0f}" + (f" / {bar.copied:,.0f}" if bar.copied else "")
        width = ImageFont.load_default(15 * _SHARPNESS).getlength(figures) / _SHARPNESS
        self._box(end + 1, y - _BAR / 2, end + width + 14, y + _BAR / 2, _PAPER)  # no line runs through the figures
        self.text(end + 8, y, figures, 15, _OURS if bar.is_ours else _INK, "lm", bold=bar.is_ours)

    def _x(self, value: float) -> float:
        share = math.log10(value / self._low) / math.log10(self._high / self._low)
        return _MARGIN + _LABELS + share * (_WIDTH - 2 * _MARGIN - _LABELS - _VALUES / 2)

    def _box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        self._draw.rectangle((self._at(left, top), self._at(right, bottom)), colour)

    @staticmethod
    def _at(x: float, y: float) -> tuple[float, float]:
        return x * _SHARPNESS, y * _SHARPNESS
