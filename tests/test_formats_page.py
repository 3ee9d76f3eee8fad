"""docs/reference/formats.md: a reader written from it reads every shard; its examples match the generator's output."""

import json
import re
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import plain_reader
import pytest
from helpers import generate, make_photos
from pairs import make_pairs, pack
from PIL import Image

import srshards
from srshards.format import CODECS

PAGE = (Path(__file__).parent.parent / "docs/reference/formats.md").read_text()

WITH_RECIPE = ("--degradation", "bsrgan-light", "--variants", 3, "--no-up")


def section(title: str) -> str:
    """Return the text between a heading and the next one."""
    return re.split(r"^#+ ", PAGE.split(f"# {title}\n")[1], flags=re.MULTILINE)[0]


def names_in(text: str, columns: slice = slice(0, 1)) -> set[str]:
    """Return the inline code in the first column of the tables."""
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    return {name for row in rows for cell in row[columns] for name in re.findall(r"`(\w+)`", cell)}


# The samples' `json`: names only with a recipe, and only of given pairs.
JSON_COLUMN = section("`json`")
RECIPE_ONLY, PAIRS_ONLY = {"degradation", "libraries"}, {"lr_source", "up_source", "pair"}


# ---- the reader


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("options", [("-s", 4), ("-s", 3, *WITH_RECIPE)], ids=["plain", "recipe"])
def test_reader_reads_every_byte(codec: str, options: tuple[object, ...], tmp_path: Path) -> None:
    """The reader asserts every header field; pixels and descriptions are compared with those of other libraries."""
    photos = make_photos(tmp_path / "photos", 12)
    (photos / "class0" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (photos / "img.png").write_bytes((photos / "class1" / "img4.png").read_bytes())
    generate(photos, tmp_path / "shards", *options, "--codec", codec, "--shard-bytes", "100KB")
    (folder,) = (tmp_path / "shards").glob("scale_*")
    found = {key: (images, description) for key, images, description in plain_reader.read_folder(folder)}
    assert len(found) == 13
    expected: dict[str, dict[str, bytes]] = {}
    for tar in folder.glob("*.tar"):
        with tarfile.open(tar) as archive:
            for member in archive:
                key, _, extension = member.name.partition(".")
                expected.setdefault(key, {})[extension] = archive.extractfile(member).read()
    assert found.keys() == expected.keys()
    for key, (images, description) in found.items():
        assert description == json.loads(expected[key].pop("json"))
        assert images.keys() == {extension.partition(".")[0] for extension in expected[key]}
        for extension, content in expected[key].items():
            name, _, kind = extension.partition(".")
            if kind == "tlc":
                assert content == images[name] and srshards.decode_tlc(content).ndim == 3
                continue
            array = np.load(BytesIO(content)) if kind == "npy" else np.asarray(Image.open(BytesIO(content)))
            assert (array.tobytes() if kind == "npy" else content) == images[name]
            assert array.dtype == np.uint8 and array.shape[2] == 3
    recipe_only = set() if options == ("-s", 4) else RECIPE_ONLY
    always = names_in(JSON_COLUMN) - RECIPE_ONLY - PAIRS_ONLY
    assert all(description.keys() == always | recipe_only for _, description in found.values())


@pytest.mark.parametrize("codec", ["png", "webp"])
def test_compressed_images_have_the_documented_layout(codec: str, tmp_path: Path) -> None:
    generate(make_photos(tmp_path / "photos", 3), tmp_path / "shards", "-s", 4, "--codec", codec)
    for _, images, _ in plain_reader.read_folder(tmp_path / "shards" / "scale_4x"):
        for content in images.values():
            if codec == "webp":
                assert content[:4] == b"RIFF" and content[8:16] == b"WEBPVP8L"
            else:
                assert content[12:16] == b"IHDR" and content[24:29] == bytes([8, 2, 0, 0, 0])
                assert content[37:41] == b"IDAT" and content[-8:-4] == b"IEND" and content.count(b"IDAT") == 1


# ---- the example


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards that the page describes under "Byte-level example"."""
    folder = tmp_path_factory.mktemp("example")
    for name in ("sky", "sea"):
        (folder / "photos" / name).mkdir(parents=True)
    row, column = np.mgrid[:16, :16] // 4 * 16
    blocks = np.stack([row, column, np.full_like(row, 255)], axis=2)
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
    for name, pixels in (("sky/blocks.png", blocks), ("sea/noise.png", noise)):
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / name)
    (folder / "photos/sea/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    generate(folder / "photos", folder / "shards", "--scales", 4, "--size", 16, "--method", "nearest")
    return folder / "shards"


def test_manifest_of_the_example(example: Path) -> None:
    (written,) = re.findall(r"<!-- output: manifest.json -->\n```json\n(.*?)```", PAGE, re.DOTALL)
    shown, found = json.loads(written), json.loads((example / "scale_4x/manifest.json").read_bytes())
    assert list(shown) == list(found) and shown["settings"] == found["settings"]
    assert shown["shards"][1] == found["shards"][1], "the shard that the page shows byte by byte"
    # Figures of the noise image depend on decoders and on the release.
    assert _shape(shown) == _shape(found)


def _shape(value: Any) -> Any:
    """Replace numbers by their types, and hashes and versions by placeholders."""
    if isinstance(value, dict):
        return {name: _shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shape(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"[0-9a-f]{64}", "HASH", value) if len(value) == 64 else re.sub(r"^[\d.]+$", "0", value)
    return type(value).__name__


def test_index_of_the_example(example: Path) -> None:
    (written,) = re.findall(r"<!-- output: val-000000.idx -->\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert written == (example / "scale_4x/val-000000.idx").read_text()


def test_hexdumps_of_the_example(example: Path) -> None:
    tar = (example / "scale_4x/val-000000.tar").read_bytes()
    dumps = re.findall(r"<!-- hexdump: val-000000.tar -->\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert len(dumps) == 4
    for dump in dumps:
        at, line, repeated = int(dump[:8], 16), "", False
        for shown in dump.splitlines():
            if shown == "*":
                repeated = True
                continue
            for start in range(at, int(shown[:8], 16), 16):
                assert repeated and _hex_line(tar, start)[8:] == line[8:]
            at, line, repeated = int(shown[:8], 16), shown, False
            assert shown == _hex_line(tar, at)
            at += 16
    assert f"whose {len(tar):,} bytes" in PAGE.replace("\n", " ")


def _hex_line(data: bytes, at: int) -> str:
    """Format 16 bytes like `hexdump -C`."""
    part = data[at : at + 16]
    if not part:
        return f"{at:08x}"
    first, second = (" ".join(f"{byte:02x}" for byte in half) for half in (part[:8], part[8:]))
    text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
    return f"{at:08x}  {first}  {second}  |{text}|"


# ---- fields and ranges


def test_all_fields_of_the_manifest_are_documented(example: Path) -> None:
    manifest = json.loads((example / "scale_4x/manifest.json").read_bytes())
    text = section("Manifest")
    documented = names_in(text)
    written = {*manifest, *manifest["settings"], *manifest["splits"]["train"], *manifest["shards"][0]}
    assert documented == written
    for name in (*manifest["totals"], *manifest["splits"]["train"]["psnr_up_db"], "path", "reason", "version"):
        assert f"`{name}`" in text or f'"{name}"' in text


def test_all_fields_of_marker_and_statistics_are_documented(example: Path) -> None:
    marker = json.loads((example / "scale_4x/train-000000.json").read_bytes())
    assert names_in(section("Done marker")) == {*marker, *marker["statistics"], "pairs"}
    stats = json.loads((example / "processing_stats.json").read_bytes())
    text = section("processing_stats.json")
    assert names_in(text) == set(stats)
    for name in (*stats["stage_seconds"], *stats["shards"]):
        assert f"`{name}`" in text


def test_all_fields_of_given_pairs_are_documented(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path / "pairs", 3, (2,))
    pack(pairs, tmp_path / "out", "--up", pairs / "HR", "--accept-misaligned")
    folder = tmp_path / "out" / "scale_2x"
    _, _, description = next(iter(plain_reader.read_folder(folder)))
    assert description.keys() == names_in(JSON_COLUMN) - RECIPE_ONLY
    assert description["pair"].keys() == names_in(section("`pair`"))
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name in (*manifest["pairs"], *manifest["pairs"]["worst"], *manifest["settings"]["pairs"]):
        assert f"`{name}`" in section("Manifest")
    assert "pairs" in json.loads(next(folder.glob("train-*.json")).read_bytes())


def test_ranges_match_the_code() -> None:
    from shardgen.planning import config
    from srshards import format

    text = section("Manifest")
    assert f"`scale` | integer, {format.MIN_SCALE} to {format.MAX_SCALE} |" in text
    assert f"`hr_size` | integer, 1 to {format.MAX_SIZE_PX}, a multiple of `scale` |" in text
    assert f"`size` | integer, {config.MIN_SIZE_PX} to {format.MAX_SIZE_PX} |" in text
    assert f"`variants` | integer, 1 to {format.MAX_VARIANTS} |" in text
    assert f"`codec` | {', '.join(f'`{name}`' for name in format.CODECS)} |" in text
    assert f"`method` | {', '.join(f'`{name}`' for name in config.METHODS)} |" in text
    assert f"Format version: **{format.FORMAT_VERSION}**" in PAGE
    assert f"`samples` | integer, 0 to {format.MAX_SAMPLES_PER_SHARD:,} |" in text


def test_names_that_are_not_utf8_are_encoded_as_documented(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 2)
    name = b"\xe9t\xe9 \xe5\xae\x89.png"
    (photos / "class0" / name.decode(errors="surrogateescape")).write_bytes(
        (make_photos(tmp_path / "other", 5) / "class1/img4.png").read_bytes()
    )
    generate(photos, tmp_path / "shards", "-s", 4)
    contents = [path.read_bytes() for path in (tmp_path / "shards/scale_4x").glob("*.tar")]
    written = rb'"source": "class0/\udce9t\udce9 \u5b89.png"'
    assert sum(content.count(written) for content in contents) == 1
    sources = {item["source"] for _, _, item in plain_reader.read_folder(tmp_path / "shards/scale_4x")}
    assert f"class0/{name.decode(errors='surrogateescape')}" in sources


def test_reader_uses_only_the_standard_library(example: Path) -> None:
    code = "import sys, pathlib, plain_reader; print(len(list(plain_reader.read_folder(pathlib.Path(sys.argv[1])))))"
    command = [sys.executable, "-S", "-c", code, str(example / "scale_4x")]
    result = subprocess.run(command, cwd=Path(__file__).parent, env={}, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "2\n"), result.stderr
