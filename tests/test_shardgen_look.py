"""`inspect`, `preview` and `unpack`."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import all_files, generate, make_photo, make_photos, read_images, run_cli
from PIL import Image

from shardgen.inspection.preview import titles
from shardgen.shard.writer import ShardWriter
from srshards.format import dump_json, load_json
from srshards.shards.stored_samples import open_manifest
from srshards.shards.tar_index import load_index


def test_inspect_shows_settings_and_statistics(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = run_cli("inspect", shards).stdout
    terms = ("scale_2x", "scale_3x", "bytes per sample", "method", "cubic", "class0", "HR channel mean")
    for term in (*terms, "PSNR of up (dB)"):
        assert term in text
    assert "\x1b" not in text
    for row in ("up yes", "sharpen hr no", "degradation -", "tile step -"):
        assert row in " ".join(text.replace("│", " ").split())


def test_inspect_json_extends_the_manifest(shards: Path) -> None:
    described = json.loads(run_cli("inspect", shards / "scale_2x", "--json").stdout)[str(shards / "scale_2x")]
    manifest = load_json(shards / "scale_2x" / "manifest.json")
    assert {key: described[key] for key in manifest} == manifest
    assert described["bytes_per_sample"] == round(manifest["totals"]["bytes"] / 40)
    assert described["failures_by_reason"] == {}


def test_manifest_statistics_match_the_pixels(shards: Path) -> None:
    for scale in (2, 3):
        folder = shards / f"scale_{scale}x"
        manifest = load_json(folder / "manifest.json")
        for split, statistics in manifest["splits"].items():
            images = {}
            for tar in folder.glob(f"{split}-*.tar"):
                images.update(read_images(tar))
            hrs = {name: pixels.astype(float) for name, pixels in images.items() if ".hr." in name}
            stacked = np.stack(list(hrs.values())) / 255
            assert statistics["channel_mean"] == pytest.approx(stacked.mean(axis=(0, 1, 2)), abs=1e-6)
            assert statistics["channel_std"] == pytest.approx(stacked.std(axis=(0, 1, 2)), abs=1e-6)
            psnrs = [
                10 * np.log10(255**2 / ((hr - images[name.replace(".hr.", ".up.")]) ** 2).mean())
                for name, hr in hrs.items()
            ]
            assert statistics["psnr_up_db"]["mean"] == pytest.approx(np.mean(psnrs), abs=1e-3)
            assert statistics["psnr_up_db"]["min"] == pytest.approx(min(psnrs), abs=1e-3)
            assert sum(statistics["samples_per_class"].values()) == statistics["samples"] == len(hrs)


def test_inspect_shows_one_sample(shards: Path) -> None:
    listed = json.loads(run_cli("inspect", shards / "scale_3x", "--shard", "val-000000", "--json").stdout)
    sample = listed[str(shards / "scale_3x")]["samples"][0]
    assert sample["key"] == "100000000000" and sample["scale"] == 3
    shown = run_cli("inspect", shards / "scale_3x", "--sample", sample["key"]).stdout
    assert sample["source"] in shown and "63 x 63 x 3" in shown and "21 x 21 x 3" in shown
    assert f"box x y w h {' '.join(map(str, sample['box']))} " in " ".join(shown.replace("│", " ").split()) + " "
    assert sample["source"] in run_cli("inspect", shards / "scale_3x", "--shard", "val-000000").stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--shard", "train-000777"), "no shard train-000777 in"),
        (("--sample", "000077700000"), "no sample 000077700000: no shard train-000777 in"),
        (("--sample", "000000099999"), "no sample 000000099999 in"),
        (("--sample", "abc"), "'abc' is not a sample key: expected twelve digits"),
        (("--sample", "000000000000", "--shard", "val-000000"), "pass either --shard or --sample, not both"),
    ],
)
def test_inspect_rejects_unknown_shards_and_samples(args: tuple[str, ...], message: str, shards: Path) -> None:
    result = run_cli("inspect", shards / "scale_2x", *args)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr


def test_inspect_refuses_what_is_no_folder_of_shards(shards: Path, tmp_path: Path) -> None:
    tar = next((shards / "scale_2x").glob("*.tar"))
    assert run_cli("inspect", tar).stderr == f"Error: {tar} is a file; pass a folder of shards\n"
    missing = tmp_path / "shards" / "scale_2x"
    assert run_cli("inspect", missing).stderr == (
        f"Error: no such folder: {missing}; to create it, run "
        f"`python -m shardgen generate -i PHOTOS -o {tmp_path / 'shards'}` or, if HR/LR pairs exist already, "
        f"`python -m shardgen pack --hr HR --lr LR -o {tmp_path / 'shards'}`\n"
    )


def test_inspect_groups_failures_by_reason(photos: Path, tmp_path: Path) -> None:
    photos_copy = Path(shutil.copytree(photos, tmp_path / "photos"))
    (photos_copy / "class0" / "empty.jpg").write_bytes(b"")
    (photos_copy / "class1" / "void.png").write_bytes(b"")
    generate(photos_copy, tmp_path / "out", "-s", 2)
    text = run_cli("inspect", tmp_path / "out").stdout
    assert "empty file" in text and "class0/empty.jpg: empty file" in text
    described = json.loads(run_cli("inspect", tmp_path / "out", "--json").stdout)
    assert next(iter(described.values()))["failures_by_reason"] == {"empty file": 2}


def test_unfinished_folder_is_reported(shards_copy: Path, tmp_path: Path) -> None:
    (shards_copy / "scale_2x" / "manifest.json").unlink()
    for command, folder in (("inspect", shards_copy), ("preview", shards_copy / "scale_2x"), ("unpack", shards_copy)):
        result = run_cli(command, folder, *(("-o", tmp_path / "x") if command == "unpack" else ()))
        assert (
            result.returncode == 2
            and "generation did not finish; run the same `generate` or `pack` command again" in result.stderr
        )


def test_preview_shows_exact_pixels(shards: Path, tmp_path: Path) -> None:
    result = run_cli("preview", shards / "scale_2x", "-o", tmp_path / "new" / "p.png", "--count", 5)
    assert result.returncode == 0 and "5 samples of" in result.stdout
    picture = np.asarray(Image.open(tmp_path / "new" / "p.png"))
    images = {}
    for tar in (shards / "scale_2x").glob("*.tar"):
        images.update(read_images(tar))
    first = picture[30 : 30 + 64, 8 : 8 + 64]
    (name,) = [name for name, pixels in images.items() if ".hr." in name and np.array_equal(pixels, first)]
    lr, up = (images[name.replace(".hr.", f".{image}.")] for image in ("lr", "up"))
    cells = [picture[30:94, 8 + column * 72 : 72 + column * 72] for column in range(4)]
    assert np.array_equal(cells[1], lr.repeat(2, axis=0).repeat(2, axis=1))
    assert np.array_equal(cells[2], up)
    assert np.array_equal(cells[3], np.minimum(np.abs(first.astype(int) - up) * 4, 255))


@pytest.mark.parametrize(
    ("cell", "title"),
    [(320, "LR (shown 2x, nearest neighbour)"), (128, "LR (shown 2x)"), (64, "LR")],
)
def test_preview_titles_state_the_magnification_of_lr(cell: int, title: str, shards: Path) -> None:
    assert titles(open_manifest(shards / "scale_2x"), cell)[1] == title


def test_preview_of_the_root_folder_is_an_error(shards: Path, tmp_path: Path) -> None:
    result = run_cli("preview", shards, "-o", tmp_path / "p.png")
    assert result.returncode == 2 and "expected the folder of one scale; pass " in result.stderr


def test_unpack_writes_one_png_per_image(photos: Path, shards: Path, tmp_path: Path) -> None:
    result = run_cli("unpack", shards, "-o", tmp_path)
    assert result.returncode == 0 and "80 samples, 240 files" in result.stdout
    for scale in (2, 3):
        names = {str(p.relative_to(tmp_path / f"scale_{scale}x")) for p in tmp_path.glob(f"scale_{scale}x/*/*.png")}
        stems = {str(p.relative_to(photos).with_suffix("")) for p in photos.rglob("*.*")}
        kinds = ("hr", f"lr_{scale}x", f"upsampled_{scale}x")
        assert names == {f"{stem}_{kind}.png" for stem in stems for kind in kinds}
    tar = shards / "scale_3x" / "val-000000.tar"
    listed = json.loads(run_cli("inspect", shards / "scale_3x", "--shard", "val-000000", "--json").stdout)
    sample = listed[str(shards / "scale_3x")]["samples"][0]
    stem = tmp_path / "scale_3x" / sample["source"].rpartition(".")[0]
    for image, kind in (("hr", "hr"), ("lr", "lr_3x"), ("up", "upsampled_3x")):
        loose = np.asarray(Image.open(f"{stem}_{kind}.png"))
        assert np.array_equal(loose, read_images(tar)[f"{sample['key']}.{image}.npy"])


def test_unpack_can_be_limited_to_a_split(shards: Path, tmp_path: Path) -> None:
    run_cli("unpack", shards / "scale_2x", "-o", tmp_path, "--split", "val")
    num_val = load_json(shards / "scale_2x" / "manifest.json")["splits"]["val"]["samples"]
    assert len(list(tmp_path.rglob("*_hr.png"))) == num_val


def save_photos(folder: Path, *names: str, size: tuple[int, int] = (64, 64)) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_photo(*size, seed=number)).save(folder / name, "PNG")
    return folder


def generate_and_unpack(photos: Path, tmp_path: Path, *args: object) -> str:
    """Unpack shards of the photos, `tmp_path / "out"`, to `tmp_path / "loose"`, and return the output."""
    generate(photos, tmp_path / "out", *args)
    result = run_cli("unpack", tmp_path / "out", "-o", tmp_path / "loose")
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_unpack_distinguishes_equal_stems_and_tiles(tmp_path: Path) -> None:
    long_name = "a/" + "名" * 80 + ".v2.png"  # 247 bytes
    photos = save_photos(tmp_path / "in", "a/one.jpg", "a/one.png", "a/two.jpg", long_name, size=(100, 140))
    generate_and_unpack(photos, tmp_path, "-s", 2, "--fit", "tile")
    names = {path.name for path in (tmp_path / "loose" / "scale_2x" / "a").iterdir()}
    assert {"one_jpg_x0_y0_hr.png", "one_png_x0_y0_hr.png", "two_x76_y36_lr_2x.png"} <= names
    assert len(names) == 4 * 6 * 3
    assert all(len(os.fsencode(name)) <= 255 for name in names)


def unpacked_sources(folder: Path, photos: Path, suffix: str) -> dict[str, str]:
    """Map each HR image below the folder to the photo with equal pixels."""
    by_pixels = {}
    for path in filter(Path.is_file, photos.rglob("*.*")):
        with Image.open(path) as image:
            by_pixels[np.asarray(image).tobytes()] = str(path.relative_to(photos))
    unpacked = filter(Path.is_file, folder.rglob(f"*{suffix}"))
    return {
        str(path.relative_to(folder)).removesuffix(suffix): by_pixels[np.asarray(Image.open(path)).tobytes()]
        for path in unpacked
    }


def test_unpack_names_are_unique_ignoring_case(tmp_path: Path) -> None:
    """Even if a disambiguated name equals that of a third photo, and on case-insensitive file systems."""
    names = ["a/img.jpg", "a/img.png", "a/img_jpg.png", "a/one.png", "b/one.png", "b/ONE.png", "B/one.png"]
    photos = save_photos(tmp_path / "in", *names)
    output = generate_and_unpack(photos, tmp_path, "-s", 4, "--no-up")
    assert "7 samples, 14 files" in output
    sources = unpacked_sources(tmp_path / "loose" / "scale_4x", photos, "_hr.png")
    assert sorted(sources.values()) == sorted(names)
    assert sources["a/img_png"] == "a/img.png" and sources["a/one"] == "a/one.png"
    keyed = {name: source for name, source in sources.items() if name not in ("a/img_png", "a/one")}
    for name, source in keyed.items():
        shown = run_cli("inspect", tmp_path / "out", "--sample", name.rpartition("_")[2]).stdout
        assert source in shown, "the name contains the key of another sample"
    assert len({name.casefold() for name in sources}) == len(names)
    assert "6 file names would not be unique" in output
    assert any(f"e.g. {name} for {source}. `python -m shardgen inspect" in output for name, source in sources.items())


def test_unpack_distinguishes_tiles_from_photos_named_like_them(tmp_path: Path) -> None:
    save_photos(tmp_path / "in", "photo.png", size=(64, 96))
    save_photos(tmp_path / "in", "photo_x0_y0.png")
    output = generate_and_unpack(tmp_path / "in", tmp_path, "-s", 4, "--fit", "tile")
    assert "3 samples, 9 files" in output and "2 file names would not be unique" in output
    hrs = [np.asarray(Image.open(path)).tobytes() for path in (tmp_path / "loose").rglob("*_hr.png")]
    assert len(hrs) == len(set(hrs)) == 3


def test_unpack_names_do_not_depend_on_the_split(tmp_path: Path) -> None:
    save_photos(tmp_path / "in", "img.jpg", "img.png", "img_jpg.png", "img_png.png")
    generate(tmp_path / "in", tmp_path / "out", "-s", 4, "--val-fraction", 0.4)
    for split in ("val", "train"):
        assert run_cli("unpack", tmp_path / "out", "-o", tmp_path / "apart", "--split", split).returncode == 0
    assert run_cli("unpack", tmp_path / "out", "-o", tmp_path / "at once").returncode == 0
    assert contents(tmp_path / "apart") == contents(tmp_path / "at once")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("existing", ["another size", "hidden files", "with up", "unrelated"])
def test_unpack_rejects_a_folder_with_other_files(existing: str, tmp_path: Path) -> None:
    names = (".a.png", ".b.png") if existing == "hidden files" else ("a/one.png", "a/two.png")
    photos = save_photos(tmp_path / "in", *names, size=(130, 130))
    generate(photos, tmp_path / "out", "-s", 4, "--no-up")
    target = tmp_path / "loose"
    if existing == "unrelated":
        (target / "scale_4x").mkdir(parents=True)
        (target / "scale_4x" / "notes.txt").write_text("mine")
    else:
        other = () if existing == "with up" else ("--size", 128, "--no-up")
        generate(photos, tmp_path / "other", "-s", 4, *other)
        assert run_cli("unpack", tmp_path / "other", "-o", target).returncode == 0
    before = contents(target)
    result = run_cli("unpack", tmp_path / "out", "-o", target)
    assert result.returncode == 2, result.stdout
    assert (
        f"{target / 'scale_4x'} contains files that unpack did not write from {tmp_path / 'out' / 'scale_4x'}"
        in result.stderr
    )
    assert "pass another --output" in result.stderr
    assert contents(target) == before


def test_unpack_rejects_a_folder_of_shards(shards_copy: Path) -> None:
    folder = shards_copy / "scale_2x"
    result = run_cli("unpack", folder, "-o", folder)
    assert result.returncode == 2 and f"{folder} is a folder of shards; pass another --output" in result.stderr
    assert not (folder / "scale_2x").exists()
    files = all_files(shards_copy)
    result = run_cli("unpack", folder, "-o", shards_copy)
    assert result.returncode == 2 and f"{folder} is a folder of shards; pass another --output" in result.stderr
    assert all_files(shards_copy) == files


def test_unpack_distinguishes_files_from_folders_named_like_them(tmp_path: Path) -> None:
    photos = save_photos(tmp_path / "in", "a.png", "a_hr.png/b.png")
    assert "2 samples, 4 files" in generate_and_unpack(photos, tmp_path, "-s", 4, "--no-up")
    sources = unpacked_sources(tmp_path / "loose" / "scale_4x", photos, "_hr.png")
    assert sorted(sources.values()) == ["a.png", "a_hr.png/b.png"] and sources["a_hr.png/b"] == "a_hr.png/b.png"


def test_unpack_resumes(shards: Path, tmp_path: Path) -> None:
    assert run_cli("unpack", shards / "scale_2x", "-o", tmp_path).returncode == 0
    before = contents(tmp_path)
    removed = [name for name in before if name.endswith("_lr_2x.png")][:3]
    for name in removed:
        (tmp_path / name).unlink()
    assert run_cli("unpack", shards, "-o", tmp_path).returncode == 0
    assert contents(tmp_path).items() >= before.items() and (tmp_path / "scale_3x").is_dir()


def test_unpack_rejects_a_file_as_output(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    result = run_cli("unpack", shards, "-o", tmp_path / "file")
    assert result.returncode == 2 and f"{tmp_path / 'file'} is a file; pass a folder" in result.stderr


def test_unpack_reports_too_long_paths_and_writes_the_rest(tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 2)
    deep = tmp_path / "in" / "/".join(["d" * 200] * 15)  # 3,015 bytes: too long below `output` only
    deep.mkdir(parents=True)
    (tmp_path / "in/class0/img0.jpg").rename(deep / "deep.jpg")
    generate(tmp_path / "in", tmp_path / "out", "-s", 2)
    output = tmp_path / "/".join(["o" * 200] * 7)
    result = run_cli("unpack", tmp_path / "out", "-o", output)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith(
        f"Error: 1 of 2 samples were not written, because their names are too long in {output}, e.g. dddd"
    )
    assert result.stderr.endswith("; pass another --output with a shorter path\n")
    assert {path.name for path in (output / "scale_2x/class1").iterdir()} == {
        f"img1_{name}" for name in ("hr.png", "lr_2x.png", "upsampled_2x.png")
    }


def test_preview_accepts_the_longest_file_name(shards: Path, tmp_path: Path) -> None:
    output = tmp_path / f"{'名' * 83}ab.png"  # 255 bytes, which leave no room for a temporary suffix
    assert run_cli("preview", shards / "scale_2x", "-o", output).returncode == 0 and output.exists()


def test_unpack_never_writes_outside_its_folder(shards_copy: Path, tmp_path: Path) -> None:
    """A shard from elsewhere may record any source path."""
    folder = shards_copy / "scale_2x"
    old, index = (folder / "val-000000.tar").read_bytes(), load_index(folder / "val-000000.idx")
    writer = ShardWriter(folder, folder, "val-000000", "val")
    for sample in index:
        members = [(m.extension, [old[m.offset : m.offset + m.size]]) for m in sample[:3]]
        described = {"source": "../../evil.png", "class": "x", "box": [0, 0, 1, 1], "scale": 2, "method": "cubic"}
        members.append(("json", [dump_json(described)]))
        writer.add(sample[0].name.partition(".")[0], members)
    writer.commit()
    result = run_cli("unpack", folder, "-o", tmp_path / "deep" / "loose")
    assert result.returncode == 1 and "outside the folder" in result.stderr and "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("evil*"))


def test_names_are_not_interpreted_as_markup_or_control_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    folder = tmp_path / "in" / "[red]class[/b]"
    folder.mkdir(parents=True)
    Image.fromarray(make_photo(70, 70, seed=0)).save(folder / "[bold]one.png")
    Image.fromarray(make_photo(70, 70, seed=1)).save(folder / "two.png")
    (folder / "[x]\x1b[31m.png").write_bytes(b"")
    generate(tmp_path / "in", tmp_path / "out", "-s", 2)
    text = run_cli("inspect", tmp_path / "out").stdout
    assert "[red]class[/b]" in text and "[x]\\x1b[31m.png: empty file" in text and "\x1b" not in text
    for shard in ("train-000000", "val-000000"):
        result = run_cli("inspect", tmp_path / "out", "--shard", shard)
        assert result.returncode == 0 and "[red]class[/b]/" in result.stdout
