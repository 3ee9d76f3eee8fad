"""Minimal ICC profiles (ICC.1:2001-04, version 2), and their conversion to sRGB in double precision.

Written from the specifications, without littlecms and without code of this project.
"""

import struct
from collections.abc import Callable, Sequence

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])  # the white of the profile connection space
_D65_XY, _D50_XY = (0.3127, 0.3290), (0.34567, 0.35850)
# Chromaticities of red, green and blue
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_PROPHOTO = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """Decode values of 0 to 1 (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(values: np.ndarray) -> np.ndarray:
    """Encode and clip to 0 to 1 (IEC 61966-2-1)."""
    clipped = np.clip(values, 0, 1)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)


# writing


def gamma(exponent: float) -> bytes:
    """A tone curve that is a power, in steps of 1/256."""
    return struct.pack(">4s4xIH", b"curv", 1, round(exponent * 256))


def srgb_curve(num_points: int) -> bytes:
    """A tone curve of points between which readers interpolate."""
    points = np.rint(srgb_to_linear(np.linspace(0, 1, num_points)) * 65535).astype(">u2")
    return struct.pack(">4s4xI", b"curv", num_points) + points.tobytes()


def rgb_profile(name: str, primaries: Sequence[tuple[float, float]], white: tuple[float, float], curve: bytes) -> bytes:
    """A matrix profile: linear RGB to XYZ adapted to D50."""
    matrix = _colorants(primaries, white)
    columns = {f"{channel}XYZ".encode(): _xyz(column) for channel, column in zip("rgb", matrix.T, strict=True)}
    curves = {f"{channel}TRC".encode(): curve for channel in "rgb"}
    return _profile(name, b"RGB ", {**columns, **curves})


def grey_profile(name: str, curve: bytes) -> bytes:
    return _profile(name, b"GRAY", {b"kTRC": curve})


def cmyk_profile(name: str, lab: Callable[[int, int, int, int], tuple[float, float, float]]) -> bytes:
    """A profile with a table of two points per ink: `lab` gives L*, a*, b* for inks that are 0 or 1."""
    nodes = [lab(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    stored = np.array([(round(lightness * 2.55), a + 128, b + 128) for lightness, a, b in nodes], np.uint8)
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 if number % 4 == 0 else 0 for number in range(9)))
    table = struct.pack(">4s4xBBBx", b"mft1", 4, 3, 2) + identity + ramp * 4 + stored.tobytes() + ramp * 3
    return _profile(name, b"CMYK", {b"A2B1": table}, kind=b"spac", connection=b"Lab ")


def adobe_rgb() -> bytes:
    return rgb_profile("Adobe RGB (1998)", _ADOBE, _D65_XY, gamma(563 / 256))


def display_p3() -> bytes:
    return rgb_profile("Display P3", _P3, _D65_XY, srgb_curve(1024))


def prophoto() -> bytes:
    return rgb_profile("ProPhoto RGB", _PROPHOTO, _D50_XY, gamma(461 / 256))


def srgb(num_points: int = 1024, name: str = "sRGB IEC61966-2.1") -> bytes:
    return rgb_profile(name, SRGB, _D65_XY, srgb_curve(num_points))


def _colorants(primaries: Sequence[tuple[float, float]], white: tuple[float, float]) -> np.ndarray:
    """Return the 3 x 3 matrix of linear RGB to XYZ, adapted to D50 by Bradford's transform."""
    unscaled = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    target = np.array([white[0] / white[1], 1, (1 - sum(white)) / white[1]])
    matrix = unscaled * np.linalg.solve(unscaled, target)
    cones = (_BRADFORD @ D50) / (_BRADFORD @ target)
    return np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix


def _xyz(values: np.ndarray) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(value * 65536) for value in values))


def _profile(
    name: str, space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", connection: bytes = b"XYZ "
) -> bytes:
    text = name.encode() + b"\0"
    description = struct.pack(">4s4xI", b"desc", len(text)) + text + bytes(4 + 4 + 2 + 1 + 67)
    tags = {b"desc": description, b"wtpt": _xyz(D50), **tags}
    offset, table, content = 132 + 12 * len(tags), b"", b""
    for tag, body in tags.items():
        table += struct.pack(">4sII", tag, offset + len(content), len(body))
        content += body + bytes(-len(body) % 4)
    header = struct.pack(
        ">I4xI4s4s4s12x4s28x3i48x",
        offset + len(content),
        0x02100000,
        kind,
        space,
        connection,
        b"acsp",
        *(round(value * 65536) for value in D50),
    )
    return header + struct.pack(">I", len(tags)) + table + content


# reading


def to_srgb(levels: np.ndarray, profile: bytes) -> np.ndarray:
    """Convert 8-bit levels, H x W x 3 or H x W x 1, with a matrix or grey profile to H x W x 3 sRGB, rounded."""
    tags = _tags(profile)
    values = np.asarray(levels) / 255
    if profile[16:20] == b"GRAY":
        linear = _linear(values, tags[b"kTRC"])
    else:
        curves = [tags[name] for name in (b"rTRC", b"gTRC", b"bTRC")]
        linear = np.stack(
            [_linear(values[..., min(n, values.shape[2] - 1)], curve) for n, curve in enumerate(curves)], 2
        )
        colorants = np.array([struct.unpack_from(">3i", tags[name], 8) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]).T
        linear = linear @ (np.linalg.inv(_colorants(SRGB, _D65_XY)) @ (colorants / 65536)).T
    return np.broadcast_to(np.rint(linear_to_srgb(linear) * 255), (*levels.shape[:2], 3)).astype(np.uint8)


def is_srgb(profile: bytes) -> bool:
    """Return whether the profile changes no grey and no colour of a grid by more than 2 levels."""
    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3), axis=-1).reshape(1, -1, 3)
    greys = np.arange(256).reshape(1, -1, 1)
    probes = [greys] if profile[16:20] == b"GRAY" else [greys, grid]
    return max(np.abs(to_srgb(probe, profile).astype(int) - probe).max() for probe in probes) <= 2


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = (struct.unpack_from(">4sII", profile, 132 + 12 * number) for number in range(count))
    return {tag: profile[offset : offset + size] for tag, offset, size in entries}


def _linear(values: np.ndarray, curve: bytes) -> np.ndarray:
    (count,) = struct.unpack_from(">I", curve, 8)
    points = np.frombuffer(curve, ">u2", count, 12)
    if count == 1:
        return np.asarray(values ** (points[0] / 256))
    return np.interp(values, np.linspace(0, 1, count), points / 65535)


def lab_to_srgb(lab: Sequence[float], black: Sequence[float]) -> np.ndarray:
    """Convert a colour relative to D50 to sRGB levels, with the neutral of the lightness of `black` mapped to black."""
    scale = np.diag((D50 - 0) / (D50 - _xyz_of((black[0], 0, 0))))
    xyz = scale @ (_xyz_of(lab) - _xyz_of((black[0], 0, 0)))
    return np.rint(linear_to_srgb(np.linalg.inv(_colorants(SRGB, _D65_XY)) @ xyz) * 255)


def _xyz_of(lab: Sequence[float]) -> np.ndarray:
    fy = (lab[0] + 16) / 116
    roots = np.array([fy + lab[1] / 500, fy, fy - lab[2] / 200])
    return D50 * np.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29))
