"""`generate --icc`: shards of photos with colour profiles."""

import json
import shutil
from pathlib import Path
from typing import Any

import icc_profiles
import numpy as np
import plain_pixels
import pytest
from helpers import contract_files, generate, run_cli
from icc_profiles import adobe_rgb, display_p3, gamma, grey_profile, srgb
from odd_photos import smooth
from PIL import Image
from plain_pixels import Ask
from plain_reader import read_folder

ARGS = ("-s", 2, "--val-fraction", 0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with profiles that are converted, that are sRGB's, that are damaged, and without one."""
    root = tmp_path_factory.mktemp("photos")
    colour, grey = Image.fromarray(smooth(160, 208)), Image.fromarray(smooth(72, 90)).convert("L")
    colour.save(root / "adobe.jpg", icc_profile=adobe_rgb(), quality=90)
    colour.save(root / "p3-1.png", icc_profile=display_p3())
    colour.save(root / "p3-2.tif", icc_profile=display_p3())
    grey.save(root / "grey.png", icc_profile=grey_profile("Gray Gamma 2.2", gamma(2.2)))
    colour.save(root / "srgb.jpg", icc_profile=srgb(), quality=90)
    colour.save(root / "damaged.jpg", icc_profile=adobe_rgb()[:200], quality=90)
    colour.save(root / "plain.jpg", quality=90)
    return root


@pytest.fixture(scope="module")
def converted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder of shards, and what `generate` printed to stdout and stderr."""
    shards = tmp_path_factory.mktemp("converted")
    result = generate(photos, shards, *ARGS)
    return shards, result.stdout, result.stderr


def manifest(shards: Path) -> dict[str, Any]:
    return dict(json.loads((shards / "scale_2x" / "manifest.json").read_bytes()))


def images(shards: Path) -> dict[str, dict[str, np.ndarray]]:
    """Return HR, LR and up of each photo."""
    edges = {"hr": 64, "lr": 32, "up": 64}
    return {
        entry["source"]: {
            name: np.frombuffer(content, np.uint8).reshape(edges[name], edges[name], 3)
            for name, content in stored.items()
        }
        for _, stored, entry in read_folder(shards / "scale_2x")
    }


def test_shards_equal_an_independent_computation(photos: Path, converted: tuple[Path, str, str]) -> None:
    found = images(converted[0])
    assert set(found) == {path.name for path in photos.iterdir()}
    for path in photos.iterdir():
        if path.name == "damaged.jpg":
            continue  # below
        (expected,) = plain_pixels.samples(path.read_bytes(), Ask("cover", "cubic", 64), 2)
        tolerance = 0 if path.name in ("srgb.jpg", "plain.jpg") else 3  # one level, three times resampled
        for name, pixels in expected.images.items():
            assert np.abs(found[path.name][name].astype(int) - pixels).max() <= tolerance, (path.name, name)


def test_photo_with_a_damaged_profile_is_as_without_one(converted: tuple[Path, str, str]) -> None:
    found = images(converted[0])
    for name in ("damaged.jpg", "srgb.jpg"):
        assert all(np.array_equal(found[name][image], found["plain.jpg"][image]) for image in ("hr", "lr", "up"))


def test_profiles_are_counted(converted: tuple[Path, str, str]) -> None:
    shards, out, err = converted
    assert manifest(shards)["settings"]["icc"] == "convert"
    assert manifest(shards)["profiles"] == {
        "converted": {"Adobe RGB (1998)": 1, "Display P3": 2, "Gray Gamma 2.2": 1},
        "unusable": [{"path": "damaged.jpg", "reason": "damaged colour profile"}],
    }
    assert "4 photos converted to sRGB from Display P3, Adobe RGB (1998), Gray Gamma 2.2." in out
    assert (
        "The colour profile of 1 photo cannot be applied, so sRGB was assumed, e.g. damaged.jpg: damaged colour "
        "profile. The manifest lists all of them." in err
    )
    assert run_cli("verify", shards).returncode == 0


def test_inspect_lists_profiles(converted: tuple[Path, str, str]) -> None:
    shown = run_cli("inspect", converted[0]).stdout
    for line in ("Display P3, converted to sRGB", "not applied: damaged colour profile"):
        assert line in shown


def test_verify_compares_profiles(converted: tuple[Path, str, str], tmp_path: Path) -> None:
    shards = shutil.copytree(converted[0], tmp_path / "shards")
    path = shards / "scale_2x" / "manifest.json"
    path.write_text(json.dumps({**manifest(shards), "profiles": {"converted": {}, "unusable": []}}))
    result = run_cli("verify", shards)
    assert result.returncode == 1 and "its profiles do not match the done markers" in result.stdout + result.stderr


def test_ignore_keeps_the_stored_values(photos: Path, converted: tuple[Path, str, str], tmp_path: Path) -> None:
    bare = tmp_path / "bare"  # the same pixels without profiles
    bare.mkdir()
    for path in photos.iterdir():
        data = path.read_bytes()
        if path.suffix == ".jpg":
            segment = data.find(b"\xff\xe2")
            end = segment + 2 + int.from_bytes(data[segment + 2 : segment + 4], "big")
            (bare / path.name).write_bytes(data[:segment] + data[end:] if segment > 0 else data)
        else:
            with Image.open(path) as image:
                Image.fromarray(np.asarray(image)).save(bare / path.name)
    result = generate(photos, tmp_path / "ignored", *ARGS, "--icc", "ignore")
    assert manifest(tmp_path / "ignored")["settings"]["icc"] == "ignore"
    assert manifest(tmp_path / "ignored")["profiles"] == {"converted": {}, "unusable": []}
    assert "sRGB" not in result.stdout + result.stderr
    generate(bare, tmp_path / "bare-shards", *ARGS)
    ignored, expected = images(tmp_path / "ignored"), images(tmp_path / "bare-shards")
    assert all(
        np.array_equal(ignored[photo][name], expected[photo][name]) for photo in expected for name in ("hr", "lr")
    )
    assert not np.array_equal(ignored["adobe.jpg"]["hr"], images(converted[0])["adobe.jpg"]["hr"])


def test_changing_the_option_replaces_shards_only_with_force(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, *ARGS, "--icc", "ignore")
    refused = generate(photos, tmp_path, *ARGS, expect=2)
    assert "(icc ignore -> convert): 1 finished shard would be removed" in refused.stderr
    generate(photos, tmp_path, *ARGS, "--force")
    assert manifest(tmp_path)["profiles"]["converted"] == {"Adobe RGB (1998)": 1, "Display P3": 2, "Gray Gamma 2.2": 1}


@pytest.mark.slow
def test_equal_bytes_with_any_number_of_workers(photos: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        generate(photos, tmp_path / str(workers), "-s", 2, "--val-fraction", 0.4, "--workers", workers)
    assert contract_files(tmp_path / "0") == contract_files(tmp_path / "2")
    assert len(manifest(tmp_path / "0")["shards"]) == 2


def test_unknown_value_of_the_option(tmp_path: Path) -> None:
    result = run_cli("generate", "-i", tmp_path, "-o", tmp_path / "o", "--icc", "perceptual")
    assert result.returncode == 2 and "'perceptual'" in result.stderr and "convert" in result.stderr


def test_report_counts_profiles(converted: tuple[Path, str, str], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = run_cli("report", converted[0], "-o", page)
    assert result.returncode == 0, result.stderr
    text = page.read_text()
    assert "photos converted to sRGB" in text and "colour profiles not applied" in text


def test_preview_of_a_recipe_shows_converted_colours(photos: Path, tmp_path: Path) -> None:
    with Image.open(photos / "p3-1.png") as image:
        in_srgb = icc_profiles.to_srgb(np.asarray(image), display_p3())
    Image.fromarray(in_srgb).save(tmp_path / "p3-1.png")
    sheets = []
    for photo in (photos / "p3-1.png", tmp_path / "p3-1.png"):
        result = run_cli("preview", "--recipe", "realesrgan", photo, "--count", 1, "-o", tmp_path / "sheet.png")
        assert result.returncode == 0, result.stderr
        with Image.open(tmp_path / "sheet.png") as sheet:
            sheets.append(np.asarray(sheet).astype(int)[8:264, 8:264])
    assert np.abs(sheets[0] - sheets[1]).max() <= 2
