"""`inspect`, `preview` and `unpack`: what people look at."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import generate, make_photo, make_photos, read_images, run_cli
from PIL import Image

from shardgen.inspection.preview import titles
from shardgen.shard.writer import ShardWriter
from srshards.format import dump_json, load_json
from srshards.shards.stored_samples import open_manifest
from srshards.shards.tar_index import load_index


def test_inspect_shows_all_that_matters(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = run_cli("inspect", shards).stdout
    words = ["scale_2x", "scale_3x", "bytes per sample", "method", "cubic", "class0", "HR channel mean"]
    for word in [*words, "PSNR of up (dB)"]:
        assert word in text
    assert "\x1b" not in text
    for row in ("up yes", "sharpen hr no", "degradation -", "tile step -"):
        assert row in " ".join(text.replace("│", " ").split())


def test_inspect_json_has_the_manifest_and_more(shards: Path) -> None:
    described = json.loads(run_cli("inspect", shards / "scale_2x", "--json").stdout)[str(shards / "scale_2x")]
    manifest = load_json(shards / "scale_2x" / "manifest.json")
    assert {key: described[key] for key in manifest} == manifest
    assert described["bytes_per_sample"] == round(manifest["totals"]["bytes"] / 40)
    assert described["failures_by_reason"] == {}


def test_the_manifests_statistics_are_those_of_the_pixels(shards: Path) -> None:
    for scale in (2, 3):
        folder = shards / f"scale_{scale}x"
        manifest = load_json(folder / "manifest.json")
        for split, said in manifest["splits"].items():
            images = {}
            for tar in folder.glob(f"{split}-*.tar"):
                images.update(read_images(tar))
            hrs = {name: pixels.astype(float) for name, pixels in images.items() if ".hr." in name}
            stacked = np.stack(list(hrs.values())) / 255
            assert said["channel_mean"] == pytest.approx(stacked.mean(axis=(0, 1, 2)), abs=1e-6)
            assert said["channel_std"] == pytest.approx(stacked.std(axis=(0, 1, 2)), abs=1e-6)
            psnrs = [
                10 * np.log10(255**2 / ((hr - images[name.replace(".hr.", ".up.")]) ** 2).mean())
                for name, hr in hrs.items()
            ]
            assert said["psnr_up_db"]["mean"] == pytest.approx(np.mean(psnrs), abs=1e-3)
            assert said["psnr_up_db"]["min"] == pytest.approx(min(psnrs), abs=1e-3)
            assert sum(said["samples_per_class"].values()) == said["samples"] == len(hrs)


def test_inspect_goes_down_to_a_sample(shards: Path) -> None:
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
        (("--sample", "000077700000"), "no shard train-000777 in"),
        (("--sample", "000000099999"), "no sample 000000099999 in"),
        (("--sample", "abc"), "'abc' is not a sample key: expected twelve digits"),
        (("--sample", "000000000000", "--shard", "val-000000"), "pass either --shard or --sample, not both"),
    ],
)
def test_inspect_says_what_is_not_there(args: tuple[str, ...], message: str, shards: Path) -> None:
    done = run_cli("inspect", shards / "scale_2x", *args)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_inspect_names_failures_by_reason(photos: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(photos, tmp_path / "photos"))
    (mine / "class0" / "empty.jpg").write_bytes(b"")
    (mine / "class1" / "void.png").write_bytes(b"")
    generate(mine, tmp_path / "out", "-s", 2)
    text = run_cli("inspect", tmp_path / "out").stdout
    assert "empty file" in text and "class0/empty.jpg: empty file" in text
    described = json.loads(run_cli("inspect", tmp_path / "out", "--json").stdout)
    assert next(iter(described.values()))["failures_by_reason"] == {"empty file": 2}


def test_an_unfinished_folder_is_said_to_be_unfinished(shards: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(shards, tmp_path / "mine"))
    (mine / "scale_2x" / "manifest.json").unlink()
    for command in (("inspect", mine), ("preview", mine / "scale_2x"), ("unpack", mine, "-o", tmp_path / "x")):
        done = run_cli(*command)
        assert done.returncode == 2 and "generation did not finish. Run the same generate command again." in done.stderr


def test_preview_shows_the_pixels_themselves(shards: Path, tmp_path: Path) -> None:
    done = run_cli("preview", shards / "scale_2x", "-o", tmp_path / "new" / "p.png", "--count", 5)
    assert done.returncode == 0 and "5 samples of" in done.stdout
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
def test_preview_titles_say_that_lr_is_shown_enlarged(cell: int, title: str, shards: Path) -> None:
    assert titles(open_manifest(shards / "scale_2x"), cell)[1] == title


def test_preview_of_the_root_asks_for_a_scale(shards: Path, tmp_path: Path) -> None:
    done = run_cli("preview", shards, "-o", tmp_path / "p.png")
    assert done.returncode == 2 and "expected the folder of one scale: pass one of" in done.stderr


def test_unpack_gives_the_files_of_the_old_workflow(photos: Path, shards: Path, tmp_path: Path) -> None:
    done = run_cli("unpack", shards, "-o", tmp_path)
    assert done.returncode == 0 and "80 samples, 240 files" in done.stdout
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


def test_unpack_of_one_split(shards: Path, tmp_path: Path) -> None:
    run_cli("unpack", shards / "scale_2x", "-o", tmp_path, "--split", "val")
    num_val = load_json(shards / "scale_2x" / "manifest.json")["splits"]["val"]["samples"]
    assert len(list(tmp_path.rglob("*_hr.png"))) == num_val


def test_unpack_keeps_apart_what_shares_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "a"
    folder.mkdir(parents=True)
    long_name = "名" * 80 + ".v2.png"  # 240 bytes and more
    for number, name in enumerate(["one.jpg", "one.png", "two.jpg", long_name]):
        Image.fromarray(make_photo(100, 140, seed=number)).save(folder / name)
    generate(tmp_path / "in", tmp_path / "out", "-s", 2, "--fit", "tile")
    done = run_cli("unpack", tmp_path / "out", "-o", tmp_path / "loose")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "loose" / "scale_2x" / "a").iterdir()}
    assert {"one_jpg_x0_y0_hr.png", "one_png_x0_y0_hr.png", "two_x76_y36_lr_2x.png"} <= names
    assert len(names) == 4 * 6 * 3
    assert all(len(os.fsencode(name)) <= 255 for name in names)


def unpacked_sources(folder: Path, photos: Path, suffix: str) -> dict[str, str]:
    """For every HR image below the folder, the photo that has its pixels."""
    by_pixels = {}
    for path in filter(Path.is_file, photos.rglob("*.*")):
        with Image.open(path) as image:
            by_pixels[np.asarray(image).tobytes()] = str(path.relative_to(photos))
    found = filter(Path.is_file, folder.rglob(f"*{suffix}"))
    return {
        str(path.relative_to(folder)).removesuffix(suffix): by_pixels[np.asarray(Image.open(path)).tobytes()]
        for path in found
    }


def save_photos(folder: Path, *names: str, size: tuple[int, int] = (64, 64)) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_photo(*size, seed=number)).save(folder / name, "PNG")
    return folder


def test_unpack_gives_every_sample_a_name_of_its_own(tmp_path: Path) -> None:
    """Also where the name that keeps two photos apart is that of a third, and where a file system ignores case."""
    names = ["a/img.jpg", "a/img.png", "a/img_jpg.png", "a/one.png", "b/one.png", "b/ONE.png", "B/one.png"]
    photos = save_photos(tmp_path / "in", *names)
    generate(photos, tmp_path / "out", "-s", 4, "--no-up")
    done = run_cli("unpack", tmp_path / "out", "-o", tmp_path / "loose")
    assert done.returncode == 0 and "7 samples, 14 files" in done.stdout, done.stderr
    found = unpacked_sources(tmp_path / "loose" / "scale_4x", photos, "_hr.png")
    assert sorted(found.values()) == sorted(names)
    assert found["a/img_png"] == "a/img.png" and found["a/one"] == "a/one.png"
    keyed = {name: source for name, source in found.items() if name not in ("a/img_png", "a/one")}
    for name, source in keyed.items():
        shown = run_cli("inspect", tmp_path / "out", "--sample", name.rpartition("_")[2]).stdout
        assert source in shown, "the key in the name is not that of its sample"
    assert len({name.casefold() for name in found}) == len(names)
    assert "6 file names would not be unique" in done.stdout
    assert any(
        f"e.g. {name} for {source}. `python -m shardgen inspect" in done.stdout for name, source in found.items()
    )


def test_unpack_keeps_tiles_and_photos_of_their_names_apart(tmp_path: Path) -> None:
    save_photos(tmp_path / "in", "photo.png", size=(64, 96))
    save_photos(tmp_path / "in", "photo_x0_y0.png")
    generate(tmp_path / "in", tmp_path / "out", "-s", 4, "--fit", "tile")
    done = run_cli("unpack", tmp_path / "out", "-o", tmp_path / "loose")
    assert "3 samples, 9 files" in done.stdout and "2 file names would not be unique" in done.stdout
    hrs = [np.asarray(Image.open(path)).tobytes() for path in (tmp_path / "loose").rglob("*_hr.png")]
    assert len(hrs) == len(set(hrs)) == 3


def test_unpacked_names_do_not_depend_on_the_split(tmp_path: Path) -> None:
    save_photos(tmp_path / "in", "img.jpg", "img.png", "img_jpg.png", "img_png.png")
    generate(tmp_path / "in", tmp_path / "out", "-s", 4, "--val-fraction", 0.4)
    for split in ("val", "train"):
        assert run_cli("unpack", tmp_path / "out", "-o", tmp_path / "apart", "--split", split).returncode == 0
    assert run_cli("unpack", tmp_path / "out", "-o", tmp_path / "at once").returncode == 0
    assert contents(tmp_path / "apart") == contents(tmp_path / "at once")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("there", ["another size", "with up", "somebody's", "the shards themselves"])
def test_unpack_does_not_mix_with_what_is_there(there: str, tmp_path: Path) -> None:
    photos = save_photos(tmp_path / "in", "a/one.png", "a/two.png", size=(130, 130))
    generate(photos, tmp_path / "out", "-s", 4, "--no-up")
    target = tmp_path / "loose"
    if there == "somebody's":
        (target / "scale_4x").mkdir(parents=True)
        (target / "scale_4x" / "notes.txt").write_text("mine")
    elif there == "the shards themselves":
        target = tmp_path / "out"
    else:
        other = ("--size", 128, "--no-up") if there == "another size" else ()
        generate(photos, tmp_path / "other", "-s", 4, *other)
        assert run_cli("unpack", tmp_path / "other", "-o", target).returncode == 0
    before = contents(target)
    done = run_cli("unpack", tmp_path / "out", "-o", target)
    assert done.returncode == 2, done.stdout
    assert (
        f"{target / 'scale_4x'} contains files that unpack did not write from {tmp_path / 'out' / 'scale_4x'}"
        in done.stderr
    )
    assert "pass another --output, or remove that folder" in done.stderr
    assert contents(target) == before


def test_unpack_does_not_mix_hidden_files_either(tmp_path: Path) -> None:
    photos = save_photos(tmp_path / "in", ".a.png", ".b.png", size=(130, 130))
    for name, size in (("small", 64), ("large", 128)):
        generate(photos, tmp_path / name, "-s", 4, "--size", size, "--no-up")
    assert run_cli("unpack", tmp_path / "small", "-o", tmp_path / "loose").returncode == 0
    before = contents(tmp_path / "loose")
    done = run_cli("unpack", tmp_path / "large", "-o", tmp_path / "loose")
    assert done.returncode == 2 and "contains files that unpack did not write from" in done.stderr
    assert contents(tmp_path / "loose") == before


def test_unpack_does_not_write_into_shards(shards: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(shards, tmp_path / "mine")) / "scale_2x"
    done = run_cli("unpack", mine, "-o", mine)
    assert done.returncode == 2 and f"{mine} is a folder of shards: pass another --output" in done.stderr
    assert not (mine / "scale_2x").exists()


def test_unpack_keeps_files_and_folders_of_one_name_apart(tmp_path: Path) -> None:
    photos = save_photos(tmp_path / "in", "a.png", "a_hr.png/b.png")
    generate(photos, tmp_path / "out", "-s", 4, "--no-up")
    done = run_cli("unpack", tmp_path / "out", "-o", tmp_path / "loose")
    assert done.returncode == 0 and "2 samples, 4 files" in done.stdout, done.stderr
    found = unpacked_sources(tmp_path / "loose" / "scale_4x", photos, "_hr.png")
    assert sorted(found.values()) == ["a.png", "a_hr.png/b.png"] and found["a_hr.png/b"] == "a_hr.png/b.png"


def test_unpack_goes_on_in_its_own_folder(shards: Path, tmp_path: Path) -> None:
    """After a kill, say. Another scale has a folder of its own."""
    assert run_cli("unpack", shards / "scale_2x", "-o", tmp_path).returncode == 0
    whole = contents(tmp_path)
    lost = [name for name in whole if name.endswith("_lr_2x.png")][:3]
    for name in lost:
        (tmp_path / name).unlink()
    assert run_cli("unpack", shards, "-o", tmp_path).returncode == 0
    assert contents(tmp_path).items() >= whole.items() and (tmp_path / "scale_3x").is_dir()


def test_unpack_into_a_file_is_refused(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = run_cli("unpack", shards, "-o", tmp_path / "file")
    assert done.returncode == 2 and f"{tmp_path / 'file'} is a file: pass a folder" in done.stderr


def test_unpack_names_what_has_too_long_a_path_and_writes_the_others(tmp_path: Path) -> None:
    make_photos(tmp_path / "in", 2)
    deep = tmp_path / "in" / "/".join(["d" * 200] * 15)  # 3,015 bytes, as much as the output takes
    deep.mkdir(parents=True)
    (tmp_path / "in/class0/img0.jpg").rename(deep / "deep.jpg")
    generate(tmp_path / "in", tmp_path / "out", "-s", 2)
    output = tmp_path / "/".join(["o" * 200] * 7)
    done = run_cli("unpack", tmp_path / "out", "-o", output)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(
        f"Error: 1 of 2 samples were not written, because their names are too long in {output}, e.g. dddd"
    )
    assert done.stderr.endswith(". Pass another --output with a shorter path.\n")
    assert {path.name for path in (output / "scale_2x/class1").iterdir()} == {
        f"img1_{name}" for name in ("hr.png", "lr_2x.png", "upsampled_2x.png")
    }


def test_a_picture_may_have_the_longest_name_that_there_is(shards: Path, tmp_path: Path) -> None:
    output = tmp_path / f"{'名' * 83}ab.png"  # 255 bytes, in which a temporary name has no room
    assert run_cli("preview", shards / "scale_2x", "-o", output).returncode == 0 and output.exists()


def test_unpack_does_not_leave_its_folder(shards: Path, tmp_path: Path) -> None:
    """A shard from somewhere else may name any source."""
    mine = Path(shutil.copytree(shards, tmp_path / "mine"))
    folder = mine / "scale_2x"
    old, index = (folder / "val-000000.tar").read_bytes(), load_index(folder / "val-000000.idx")
    writer = ShardWriter(folder, folder, "val-000000", "val")
    for sample in index:
        members = [(m.extension, [old[m.offset : m.offset + m.size]]) for m in sample[:3]]
        described = {"source": "../../evil.png", "class": "x", "box": [0, 0, 1, 1], "scale": 2, "method": "cubic"}
        members.append(("json", [dump_json(described)]))
        writer.add(sample[0].name.partition(".")[0], members)
    writer.commit()
    done = run_cli("unpack", folder, "-o", tmp_path / "deep" / "loose")
    assert done.returncode == 1 and "outside the folder" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("evil*"))


def test_names_are_shown_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as markup, not as a terminal's codes."""
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
        done = run_cli("inspect", tmp_path / "out", "--shard", shard)
        assert done.returncode == 0 and "[red]class[/b]/" in done.stdout
