"""The codec `tlc`: exact pixels and crops, equal bytes with and without the compiled core, refusal of damage."""

import mmap
import re
import shutil
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import srshards
from srshards import native
from srshards.errors import RunError
from srshards.imaging import codec, tlc
from srshards.imaging.pixels import Pixels

ROOT = Path(__file__).parent.parent
SIZES = [(1, 1), (1, 70), (70, 1), (7, 9), (8, 8), (31, 33), (32, 32), (33, 31), (64, 96), (100, 101)]
Decode = Callable[[bytes], Any]


def noise(height: int, width: int, levels: int = 256) -> Pixels:
    return np.random.default_rng(0).integers(0, levels, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> Pixels:
    """Curved planes with a little noise, like a photo."""
    y, x = np.mgrid[:height, :width] / 40
    planes = np.stack([np.sin(x + y / 2), np.cos(x * y), np.sin(y - x / 3)], -1) * 50 + 128
    return np.clip(planes + np.random.default_rng(1).normal(0, 1.5, planes.shape), 0, 255).astype(np.uint8)


def drawing(height: int, width: int) -> Pixels:
    """Flat colours and lines."""
    y, x = np.mgrid[:height, :width]
    colours = noise(5, 1)[:, 0]
    return np.ascontiguousarray(colours[np.where((x + 2 * y) % 37 < 2, 0, 1 + (x // 29 + y // 23) % 4)])


def gradient(height: int, width: int) -> Pixels:
    y, x = np.mgrid[:height, :width, :3][:2]
    return ((2 * x + 3 * y) % 256).astype(np.uint8)


def gray(height: int, width: int) -> Pixels:
    return np.repeat(smooth(height, width)[:, :, :1], 3, 2)


def flat(height: int, width: int) -> Pixels:
    return np.full((height, width, 3), (255, 0, 7), np.uint8)


CONTENTS = {f.__name__: f for f in (noise, smooth, drawing, gradient, gray, flat)}


@pytest.fixture(params=["core", "numpy"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with the compiled core, and with NumPy."""
    if request.param == "numpy":
        monkeypatch.setattr(native, "_core", None)
    elif not native.is_available():
        pytest.skip("the compiled core is not built")
    return str(request.param)


def crop(content: bytes, top: int, left: int, height: int, width: int) -> Pixels:
    out = np.full((height, width, 3), 99, np.uint8)
    tlc.decode_crop(content, top, left, out)
    return out


# ---- pixels


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", CONTENTS)
def test_decoding_gives_the_same_pixels(name: str, size: tuple[int, int], implementation: str) -> None:
    image = CONTENTS[name](*size)
    assert np.array_equal(tlc.decode(tlc.encode(image)), image)


@pytest.mark.parametrize("size", [(1, 1), (40, 33), (96, 100)], ids=str)
@pytest.mark.parametrize("name", CONTENTS)
def test_every_crop_equals_the_slice(name: str, size: tuple[int, int], implementation: str) -> None:
    image = CONTENTS[name](*size)
    content, rng = tlc.encode(image), np.random.default_rng(2)
    edges = [sorted({0, 1, 8, 31, 32, 33, edge - 1, edge} & set(range(edge + 1))) for edge in size]
    boxes = [(y, x, y2, x2) for y in edges[0] for y2 in edges[0] for x in edges[1] for x2 in edges[1]]
    boxes = [(y, x, y2, x2) for y, x, y2, x2 in boxes if y < y2 and x < x2]
    for index in rng.permutation(len(boxes))[: 400 if implementation == "core" else 20]:
        y, x, y2, x2 = boxes[index]
        assert np.array_equal(crop(content, y, x, y2 - y, x2 - x), image[y:y2, x:x2]), (y, x, y2, x2)


@given(st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_image_and_crop(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    image = noise(height, width, data.draw(st.integers(1, 256))) + np.uint8(data.draw(st.integers(0, 255)))
    content = tlc.encode(image)
    assert np.array_equal(srshards.decode_tlc(content), image)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    assert np.array_equal(crop(content, top, left, bottom - top, right - left), image[top:bottom, left:right])


def test_a_crop_is_written_in_place_only(implementation: str) -> None:
    """Nothing before or after the crop in a batch changes."""
    image, batch = smooth(70, 70), np.full((3, 40, 40, 3), 99, np.uint8)
    tlc.decode_crop(memoryview(tlc.encode(image)), 3, 29, batch[1])
    assert np.array_equal(batch[1], image[3:43, 29:69])
    assert (batch[0] == 99).all() and (batch[2] == 99).all()


def test_non_contiguous_images_are_encoded(implementation: str) -> None:
    image = smooth(40, 50)
    assert tlc.encode(image[:, ::-1]) == tlc.encode(np.ascontiguousarray(image[:, ::-1]))


# ---- bytes


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", CONTENTS)
def test_bytes_are_the_same_without_the_core(name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    if not native.is_available():
        pytest.skip("the compiled core is not built")
    image = CONTENTS[name](*size)
    content = tlc.encode(image)
    monkeypatch.setattr(native, "_core", None)
    assert tlc.encode(image) == content


def test_many_tiles_are_done_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    image = smooth(130, 100)
    content = tlc.encode(image)
    monkeypatch.setattr(native, "_core", None)
    monkeypatch.setattr(tlc, "_TILES_AT_ONCE", 5)
    assert tlc.encode(image) == content and np.array_equal(tlc.decode(content), image)
    assert np.array_equal(crop(content, 17, 20, 100, 70), image[17:117, 20:90])


def test_all_modes_and_codes_occur() -> None:
    """Otherwise the other tests would leave parts of the format out."""
    image = np.concatenate([CONTENTS[name](96, 96) for name in CONTENTS])
    image = np.concatenate([image, *(noise(64, 96, levels) + np.uint8(100) for levels in (2, 3, 5, 9, 20, 50, 120))])
    image = np.concatenate([image, *(_pulses(96, rare, high) for rare in (2, 9, 40) for high in (3, 40, 255))])
    _, modes, codes = _parts(tlc.encode(image))
    assert modes == {0, 1, 2, 3} and codes == set(range(16))


def _pulses(edge: int, rare: int, high: int) -> Pixels:
    """A flat plane in which one value in `rare` is different."""
    rng = np.random.default_rng(rare)
    return np.where(rng.integers(0, rare, (edge, edge, 3)) == 0, rng.integers(0, high, (edge, edge, 3)), 0).astype("u1")


def _parts(content: bytes) -> tuple[int, set[int], set[int]]:
    """Return the number of tiles, and the modes and codes of blocks, by the reader of docs/reference/formats.md."""
    codes: set[int] = set()
    names = reader()

    class Recorded(names["Stream"]):  # type: ignore[misc]
        def take(self, code: int) -> Any:
            codes.add(int(code))
            return super().take(code)

    names["Stream"] = Recorded
    names["decode"](content)
    height, width = tlc.read_size(content)
    count = -(-height // 32) * -(-width // 32)
    sizes = np.frombuffer(content, "<u2", count, 12).astype(int)
    starts = 12 + 2 * count + np.cumsum(sizes) - sizes
    return count, {content[start] for start in starts}, codes - {16} | {0}


def test_header_has_the_documented_layout() -> None:
    content = tlc.encode(smooth(300, 40))
    assert content[:8] == b"TLC1" + (300).to_bytes(2, "little") + (40).to_bytes(2, "little")
    assert int.from_bytes(content[8:12], "little") == zlib.crc32(content[:8] + content[12:])
    assert len(content) == 12 + 2 * 20 + np.frombuffer(content, "<u2", 20, 12).sum()


def test_sizes() -> None:
    """Noise takes hardly more than raw, and other images much less; those like photos less than as PNG."""
    ratio = {name: len(tlc.encode(content(512, 512))) / (3 * 512**2) for name, content in CONTENTS.items()}
    assert ratio["noise"] < 1.01 and ratio["flat"] < 0.01 and ratio["gradient"] < 0.1
    assert ratio["gray"] < 0.45 * ratio["smooth"]
    png = sum(map(len, codec.encode("png", smooth(512, 512)))) / (3 * 512**2)
    assert ratio["smooth"] < 0.9 * png


# ---- the specification


def reader() -> dict[str, Any]:
    """Return the names that the reader in docs/reference/formats.md defines."""
    page = (ROOT / "docs/reference/formats.md").read_text()
    (text,) = re.findall(r"<!-- tlc reader -->\n```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(text, names)
    return names


@pytest.mark.parametrize("size", [(1, 1), (9, 7), (33, 41), (64, 32)], ids=str)
@pytest.mark.parametrize("name", CONTENTS)
def test_the_documented_reader(name: str, size: tuple[int, int]) -> None:
    image = CONTENTS[name](*size)
    assert np.array_equal(reader()["decode"](tlc.encode(image)), image)


def test_the_documented_example() -> None:
    """The image and its bytes in docs/reference/formats.md, so that the format cannot change unnoticed."""
    page = (ROOT / "docs/reference/formats.md").read_text()
    (text,) = re.findall(r"<!-- tlc example -->\n```text\n(.*?)```", page, re.DOTALL)
    content = bytes.fromhex("".join(line[8:58].strip() for line in text.splitlines()))
    y, x = np.mgrid[:5, :10]
    image = np.stack([20 * y, 20 * y + x // 4, 100 + x], 2).astype(np.uint8)
    assert tlc.encode(image) == content


# ---- bad input


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"expected H x W x 3 uint8, got \(4, 4\) uint8"),
        (np.zeros((4, 4, 3), np.float32), r"expected H x W x 3 uint8, got \(4, 4, 3\) float32"),
        (np.zeros((0, 4, 3), np.uint8), "expected 1 to 65535 px, got 0 x 4 px"),
        (np.zeros((1, 65536, 3), np.uint8), "expected 1 to 65535 px, got 1 x 65536 px"),
    ],
)
def test_other_arrays_are_not_encoded(image: Any, message: str, implementation: str) -> None:
    with pytest.raises(ValueError, match=message):
        tlc.encode(image)


def test_the_largest_edges_are_encoded() -> None:
    image = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (1, 256, 3))[:, :65535]
    for shape in (image, image.swapaxes(0, 1)):
        content = tlc.encode(shape)
        assert np.array_equal(crop(content, *(edge - 1 for edge in shape.shape[:2]), 1, 1), shape[-1:, -1:])


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((0, 0, 41, 1), r"41 x 1 px at \(0, 0\) are outside of the image, which has 40 x 50 px"),
        ((1, 0, 40, 1), r"40 x 1 px at \(1, 0\) are outside"),
        ((0, 20, 1, 31), r"1 x 31 px at \(0, 20\) are outside"),
        ((-1, 0, 1, 1), r"1 x 1 px at \(-1, 0\) are outside"),
        ((0, -1, 1, 1), r"1 x 1 px at \(0, -1\) are outside"),
        ((0, 0, 0, 1), r"0 x 1 px at \(0, 0\) are outside"),
    ],
)
def test_crops_outside_of_the_image_are_refused(box: tuple[int, ...], message: str, implementation: str) -> None:
    content = tlc.encode(smooth(40, 50))
    with pytest.raises(ValueError, match=message):
        crop(content, *box)


def test_crops_into_other_arrays_are_refused(implementation: str) -> None:
    content = tlc.encode(smooth(40, 50))
    with pytest.raises(ValueError, match=r"expected H x W x 3 uint8, got \(4, 4\) uint8"):
        tlc.decode_crop(content, 0, 0, np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="expected an array in C order"):
        tlc.decode_crop(content, 0, 0, np.zeros((4, 8, 3), np.uint8)[:, ::2])


def _changed(content: bytes, offset: int, *values: int) -> bytes:
    return content[:offset] + bytes(values) + content[offset + len(values) :]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "the header is truncated"),
    "header": (lambda content: content[:11], "the header is truncated"),
    "magic": (lambda content: _changed(content, 3, 50), r"expected a header of TLC1, found b'TLC2"),
    "height 0": (lambda content: _changed(content, 4, 0, 0), "expected a header of TLC1"),
    "width 0": (lambda content: _changed(content, 6, 0, 0), "expected a header of TLC1"),
    "table": (lambda content: content[:19], "the table of tiles is truncated"),
    "larger image": (lambda content: _changed(content, 4, 255, 255), "the table of tiles is truncated"),
    "truncated": (lambda content: content[:-1], r"expected \d+ bytes, found \d+"),
    "extended": (lambda content: content + b"x", r"expected \d+ bytes, found \d+"),
    "size of a tile": (lambda content: _changed(content, 12, 1), r"expected \d+ bytes, found \d+"),
    "crc": (lambda content: _changed(content, 8, *(255 - value for value in content[8:12])), "CRC-32 does not match"),
    "last byte": (lambda content: _changed(content, len(content) - 1, content[-1] ^ 1), "CRC-32 does not match"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_in_complete_images(damage: str, implementation: str) -> None:
    inflict, message = DAMAGES[damage]
    with pytest.raises(ValueError, match=message):
        tlc.decode(inflict(tlc.encode(smooth(40, 50))))


TILE_DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {
    "mode": lambda content, start: _changed(content, start, 4),
    "size of a stream": lambda content, start: _changed(content, start + 5, 99),
    "shorter stream": lambda content, start: _changed(content, start + 4, content[start + 4] - 1),
    "code of a block": lambda content, start: _changed(content, start + 10, 255, 255, 255),
    "no tile": lambda content, start: _changed(content, 12, 0, 0),
    "small tile": lambda content, start: _changed(content, 12, 9, 0),
    "beyond the end": lambda content, start: _changed(content, 12, 255, 255),
}


@pytest.mark.parametrize("damage", TILE_DAMAGES)
def test_damage_is_found_in_a_tile(damage: str, implementation: str) -> None:
    """What makes decoding impossible is found without the CRC-32, and other tiles can still be decoded."""
    image = smooth(32, 64)
    content = TILE_DAMAGES[damage](tlc.encode(image), 16)
    with pytest.raises(ValueError, match="a tile is damaged"):
        crop(content, 0, 0, 32, 32)
    if "size" in damage or "stream" in damage or damage in ("mode", "code of a block"):
        assert np.array_equal(crop(content, 0, 32, 32, 32), image[:, 32:])


def test_no_memory_is_allocated_for_tiles_that_are_missing() -> None:
    """8 MB claim an image of 12 GB; length and checksum are right."""
    content = bytearray(b"TLC1" + b"\xff" * 4 + bytes(4 + 2 * 2048**2))
    content[8:12] = zlib.crc32(content[12:], zlib.crc32(content[:8])).to_bytes(4, "little")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="a tile is damaged"):
            srshards.decode_tlc(bytes(content))
        assert tracemalloc.get_traced_memory()[1] < 10**8
    finally:
        tracemalloc.stop()


def test_images_larger_than_those_of_shards_are_refused() -> None:
    content = tlc.encode(flat(1, 9000))
    with pytest.raises(RunError, match=r"cannot be decoded as tlc \(expected at most 8192 px, found 9000 x 1 px\)"):
        codec.decode("tlc", content)
    assert codec.decode_image(content) is None


def test_random_damage_gives_pixels_or_an_error(implementation: str) -> None:
    image, rng = smooth(70, 50), np.random.default_rng(3)
    content, refused = tlc.encode(image), 0
    for _ in range(200 if implementation == "core" else 40):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 5)):
            damaged[rng.integers(12, len(content))] = rng.integers(256)
        try:
            crop(bytes(damaged), 5, 3, 60, 40)
        except ValueError as error:
            assert str(error) == "a tile is damaged"
            refused += 1
        if damaged != content:
            with pytest.raises(ValueError, match=r"CRC-32 does not match|bytes, found"):
                tlc.decode(bytes(damaged))
    assert refused


def test_a_file_that_became_shorter_gives_an_error(tmp_path: Path) -> None:
    """Reading its mapped memory would otherwise end the process."""
    if not native.is_available():
        pytest.skip("the compiled core is not built")
    path, content = tmp_path / "image.tlc", tlc.encode(noise(200, 200))
    path.write_bytes(content)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        file.truncate(8192)
        with memoryview(mapped) as view:
            data = np.frombuffer(view, np.uint8)
            with pytest.raises(native.Unreadable):
                native.decode_tlc(data, 160, 160, np.empty((40, 40, 3), np.uint8))
            with pytest.raises(ValueError, match="its memory cannot be read"):
                tlc.decode_crop(view, 160, 160, np.empty((40, 40, 3), np.uint8))
            assert crop(view[:8192], 0, 0, 10, 10).shape == (10, 10, 3)  # type: ignore[arg-type]
            del data


@pytest.mark.slow
@pytest.mark.parametrize("option", ["-DTLC_SIMD", "-DTLC_PLAIN"], ids=["simd", "plain"])
def test_hostile_content_with_sanitizers(option: str, tmp_path: Path) -> None:
    """Random, truncated and mutated content, with AddressSanitizer and UndefinedBehaviorSanitizer."""
    if not (compiler := shutil.which("gcc") or shutil.which("clang")):
        pytest.skip("no compiler")
    sources = [ROOT / "tests/fuzz_tlc.c", ROOT / "srshards/native/tlc.c"]
    flags = ["-O1", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Wconversion", "-Werror", option]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [compiler, *flags, *sanitizers, f"-I{ROOT / 'srshards/native'}", *sources, "-o", tmp_path / "fuzz"]
    built = subprocess.run(command, capture_output=True, text=True)
    if "cannot find" in built.stderr:
        pytest.skip("the sanitizers are not installed")
    assert built.returncode == 0, built.stderr
    result = subprocess.run([tmp_path / "fuzz", "1000"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    decoded, refused = map(int, re.findall(r"\d+", result.stdout))
    assert decoded + refused == 20000 and min(decoded, refused) > 1000
