"""Messages for folders, patterns, lists and LMDBs whose pairs are not certain."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pair_folders import NAMES, image, images, named, old_scripts, write_lmdb

from shardgen.pairs.find import find_pairs
from shardgen.pairs.source import read_source
from srshards.errors import PhotoError, UsageError
from srshards.extras import install_hint
from srshards.storage.store import parse_address


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(UsageError) as error:
        find_pairs(*args, **options)
    return str(error.value)


@pytest.fixture
def hr(tmp_path: Path) -> Path:
    return images(tmp_path / "HR", named("{}.png"))


@pytest.fixture
def lr(tmp_path: Path) -> Path:
    return images(tmp_path / "LR", named("{}x4.png"), 12)


# ---- folders


def test_missing_folders(hr: Path, lr: Path, tmp_path: Path) -> None:
    none, file = tmp_path / "none", image(tmp_path / "file.png")
    assert refusal(none, [lr]) == f"no such folder: {none}; pass the folder of HR images as --hr"
    assert refusal(hr, [none]) == f"no such folder: {none}; pass the folder of LR images as --lr"
    assert refusal(hr, [lr], [none]) == f"no such folder: {none}; pass the folder of upsampled images as --up"
    assert refusal(hr, [file]) == f"{file} is a file; pass the folder of LR images as --lr"
    none.mkdir()
    assert refusal(hr, [none]).startswith(f"no LR images in {none}: expected files ending in .avif .bmp ")


def test_no_pairs(hr: Path, lr: Path) -> None:
    for path in lr.rglob("*.png"):
        path.rename(path.with_name("low" + path.name))
    image(lr / "sky/low9.png", 12)
    assert refusal(hr, [lr]) == (
        f"no pairs: HR {hr} has mountain/img1.png, mountain/img2.png, sky/img1.png and LR {lr} has "
        "mountain/lowimg1x4.png, mountain/lowimg2x4.png, sky/low9.png, ...; for images in equal folders with other "
        "names than those recognised (0001.png, 0001x4.png, 0001_lr_4x.png), pass --pattern, e.g. '{name}x{scale}' or "
        "'{name}_HR:{name}_LR'"
    )
    assert refusal(hr, [lr], pattern="{name}_{scale}") == (
        f"no pairs by --pattern ({{name}} with {{name}}_{{scale}}): HR {hr} has mountain/img1.png, mountain/img2.png, "
        f"sky/img1.png and LR {lr} has mountain/lowimg1x4.png, mountain/lowimg2x4.png, sky/low9.png, ...; pass another "
        "--pattern"
    )


def test_one_folder_for_both_without_pairs_in_it(hr: Path) -> None:
    expected = (
        f"no pairs: HR {hr} has mountain/img1.png, mountain/img2.png, sky/img1.png, but no LR images of them; pass "
        "their folder as --lr (--val-lr for --val)"
    )
    assert refusal(hr, [hr]) == expected, "an image is not its own LR"
    assert refusal(hr, []) == expected


def test_swapped_folders(hr: Path, lr: Path) -> None:
    assert refusal(lr, [hr]) == f"no pairs: HR {lr} has the LR images of LR {hr}; swap --hr and --lr"


def test_images_without_a_counterpart(hr: Path, lr: Path) -> None:
    for name in ("mountain/img1x4.png", "sky/img1x4.png"):
        (lr / name).unlink()
    images(lr, ["sky/img7x4.png", "sky/other.png"], 12)
    assert refusal(hr, [lr]) == (
        f"2 HR images without LR image in {lr}: mountain/img1.png, sky/img1.png; 1 LR image without HR image in {hr}: "
        f"sky/img7x4.png; 1 image without a name of the form {{name}}x{{scale}} in {lr}: sky/other.png; add the "
        "missing images or remove the others, or pass --skip-unpaired to leave them out"
    )


def test_upper_and_lower_case_differ(hr: Path, lr: Path) -> None:
    (hr / "sky/img1.png").rename(hr / "sky/IMG1.png")
    assert refusal(hr, [lr]).startswith(
        f"1 HR image without LR image in {lr} (upper and lower case differ in sky/IMG1.png and sky/img1x4.png): "
        "sky/IMG1.png; 1 LR image without"
    )
    for path in (hr / "mountain").iterdir():
        path.rename(path.with_name(path.name.upper()))
    assert "(upper and lower case differ in mountain/IMG1.PNG and mountain/img1x4.png)" in refusal(hr, [lr])


def test_accented_letters_are_encoded_differently(hr: Path, lr: Path) -> None:
    """As after copying one folder from macOS."""
    (hr / "sky/img1.png").rename(hr / "sky/caf\u00e9.png")
    (lr / "sky/img1x4.png").rename(lr / "sky/cafe\u0301x4.png")
    assert (
        "(accented letters are encoded differently, as Unicode NFC and NFD, in sky/caf\u00e9.png and "
        "sky/cafe\u0301x4.png)"
    ) in refusal(hr, [lr])


def test_upsampled_images_without_a_counterpart(hr: Path, tmp_path: Path) -> None:
    lr = old_scripts(tmp_path / "OST_LR", 4) / "scale_4x"
    (lr / "sky/img1_upsampled_4x.png").unlink()
    image(lr / "sky/img5_upsampled_4x.png")
    assert refusal(hr, [lr]).startswith(
        f"1 upsampled image without HR image in {hr}: sky/img5_upsampled_4x.png; 1 HR image without upsampled image in "
        f"{lr}: sky/img1.png; add the missing"
    )


def test_several_images_of_one_name(hr: Path, lr: Path) -> None:
    image(hr / "sky/img1.jpg")
    assert refusal(hr, [lr]) == (
        f"{hr} has several HR images of one name: sky/img1.jpg and sky/img1.png (1 in total); rename or remove one of "
        "each, or list it in --exclude"
    )
    (hr / "sky/img1.jpg").unlink()
    images(lr, [f"sky/img1x4.{name}" for name in ("jpg", "bmp", "gif")], 12)
    assert refusal(hr, [lr], skip_unpaired=True).endswith(" (3 in total); rename or remove one of each")


def test_names_that_fit_two_rules(hr: Path, lr: Path) -> None:
    images(lr, ["sky/img1.png"], 12)
    assert refusal(hr, [lr]) == (
        f"the names in {hr} and {lr} give pairs by several rules, none of which covers all images: 1 by {{name}} with "
        "{name}; 3 by {name} with {name}x{scale}; pass one of them, e.g. --pattern '{name}:{name}'"
    )
    assert len(find_pairs(hr, [lr], pattern="{name}x{scale}").pairs) == 3


def test_several_folders_of_hr_images_below_one(tmp_path: Path) -> None:
    for name in ("DIV2K_train_HR", "DIV2K_valid_HR", "DIV2K_train_LR_bicubic"):
        images(tmp_path / name, ["1.png"])
    assert refusal(tmp_path) == (
        f"{tmp_path} has several folders of HR images (DIV2K_train_HR, DIV2K_valid_HR); pass one as --hr and its LR "
        "as --lr"
    )


# ---- scales


def test_several_scales_in_one_folder(hr: Path, lr: Path) -> None:
    image(lr / "sky/img1x4.png", 24)
    assert refusal(hr, [lr]) == (
        f"{lr} has images of several scales: 2x (sky/img1x4.png), 4x (mountain/img1x4.png); pass a folder for each "
        "scale as --lr, or select one by --pattern, e.g. '{name}x4'"
    )
    image(lr / "sky/img1x2.png", 24)
    assert "several scales: 2x (sky/img1x2.png), 4x (mountain/img1x4.png)" in refusal(hr, [lr])
    image(lr / "sky/img1x4.png", 12)
    assert find_pairs(hr, [lr], pattern="{name}x4").scales == (4,)


def test_names_that_state_another_scale(hr: Path, tmp_path: Path) -> None:
    lr = images(tmp_path / "scale_2x", named("{}.png"), 12)
    assert refusal(hr, [lr]) == (
        f"{lr} is named for scale 2, but the scale is 4: mountain/img1.png has 12 x 12 px, its HR image "
        "mountain/img1.png 48 x 48 px; if LR was made from resized copies of the photos, "
        "make both anew with `generate`, otherwise rename it or pass another folder"
    )
    lr = images(tmp_path / "LR", named("{}x3.png"), 12)
    assert refusal(hr, [lr]).startswith(f"mountain/img1x3.png in {lr} is named for scale 3, but the scale is 4: ")


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        (96, "LR is larger than HR: {example}; swap --hr and --lr"),
        (
            48,
            "LR is as large as HR: {example}; pass LR images before their enlargement as --lr, and "
            "enlarged ones as --up",
        ),
        (4, "{lr} has scale 12: {example}; pass LR images of a scale from 2 to 8"),
        (
            31,
            "the sizes of HR and LR in {lr} do not have an integer ratio: {example}; pass LR images whose edges are 1/"
            "2 to 1/8 of those of HR, or if LR was made from resized copies of the photos, make both anew with "
            "`generate`",
        ),
    ],
)
def test_sizes_that_give_no_scale(edge: int, message: str, hr: Path, tmp_path: Path) -> None:
    lr = images(tmp_path / "LR", named("{}.png"), edge)
    example = f"mountain/img1.png has {edge} x {edge} px, its HR image mountain/img1.png 48 x 48 px"
    assert refusal(hr, [lr]) == message.format(lr=lr, example=example)


def test_hr_that_is_not_a_multiple_of_lr_has_a_scale(tmp_path: Path) -> None:
    image(tmp_path / "HR/1.png", 51, 7)
    image(tmp_path / "LR/1.png", 12, 1)
    assert find_pairs(tmp_path).scales == (4,)


def test_damaged_images(hr: Path, lr: Path) -> None:
    (lr / "sky/img1x4.png").write_bytes(b"damaged")
    assert len(find_pairs(hr, [lr]).pairs) == 3, "it fails by name when its shard is built"
    for path in lr.rglob("*.png"):
        path.write_bytes(b"")
    assert refusal(hr, [lr]) == (
        f"none of 3 inspected pairs can be read, e.g. mountain/img1x4.png in {lr}: empty file; replace these images"
    )


def test_two_folders_of_one_scale(hr: Path, lr: Path, tmp_path: Path) -> None:
    other = images(tmp_path / "other", named("{}.png"), 12)
    assert refusal(hr, [lr, other]) == f"{lr} and {other} have scale 4; pass one folder per scale as --lr"


def test_hr_of_several_scales_in_one_folder(tmp_path: Path) -> None:
    for scale in (2, 4):
        images(tmp_path / f"scale_{scale}x", named("{}_hr.png"))
        images(tmp_path / f"scale_{scale}x", named(f"{{}}_lr_{scale}x.png"), 48 // scale)
    folder = tmp_path / "scale_2x"
    assert refusal(tmp_path) == (
        f"{tmp_path} has HR and LR images of several scales (scale_2x, scale_4x); pack one scale at a time, e.g. --hr "
        f"{folder} --lr {folder}"
    )


def test_upsampled_images_of_unclear_scale(hr: Path, lr: Path, tmp_path: Path) -> None:
    lrs = [lr, images(tmp_path / "X2", named("{}x2.png"), 24)]
    up = images(tmp_path / "up", named("{}.png"))
    assert refusal(hr, lrs, [up]) == (
        f"the name of {up} does not state a scale, but LR has 2x and 4x; rename the folder, e.g. scale_2x, or pack one "
        "scale at a time"
    )
    up = up.rename(tmp_path / "up_x4")
    assert refusal(hr, lrs, [up]) == (
        "there are upsampled images for scale 4, but none for 2; pass those of every scale as --up, e.g. scale_2x, or "
        "pack one scale at a time"
    )
    assert refusal(hr, [lr], [lr]) == (
        f"no upsampled images in {lr}: expected names like img1_upsampled_4x.png; omit --up"
    )


# ---- patterns and lists


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("x{scale}", "has 0 times {name} in 'x{scale}'"),
        ("{name}{name}", "has 2 times {name} in '{name}{name}'"),
        ("{name}_{factor}", "has other fields than one {name} and one {scale} in '{name}_{factor}'"),
        ("{name}x{scale}.png", "has a file extension in '{name}x{scale}.png'"),
        ("/data/{name}", "has an absolute path in '/data/{name}'"),
        ("{name}:{name}:{name}:{name}", "has 4 templates, separated by colons"),
    ],
)
def test_invalid_pattern(pattern: str, problem: str, hr: Path, lr: Path) -> None:
    assert refusal(hr, [lr], pattern=pattern) == (
        f"--pattern {pattern!r} {problem}; expected the names of LR images without extension, e.g. '{{name}}x{{scale}}'"
        " for 0001.png with 0001x4.png, or those of HR and LR images, e.g. '{name}_HR:{name}_LR{scale}'"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\n", "{file} lists no image; expected lines such as `0001_s001.png (480,480,3)`"),
        (
            "sky/img1.png (48,48,3)\nsky/gone.png (48,48,3)\n000 100 (720,1280,3)",
            "{file}, line 2: sky/gone.png is not in {hr}, nor are the images of 1 more lines; pass the HR folder that "
            "the paths start from as --hr, or remove these lines",
        ),
        (
            "sky/img1.png, sky/gone.png",
            "{file}, line 1: sky/gone.png is not in {lr}; pass the LR folder that the paths start from as --lr, or "
            "remove these lines",
        ),
        ("a.png\nb.png\n\na.png (1,1,3)", "{file}, line 4 lists a.png again after line 1; remove one of them"),
        (
            "a.png\nb.png, c.png",
            "{file} lists HR and LR in line 2, but only one of them in line 1; use the same form in all lines",
        ),
        ("\udcff", "{file} is not UTF-8 (invalid start byte); pass BasicSR's meta_info text file"),
        (None, "cannot read {file}: No such file or directory; pass BasicSR's meta_info text file"),
    ],
)
def test_invalid_meta_info(text: str | None, message: str, hr: Path, lr: Path, tmp_path: Path) -> None:
    file = tmp_path / "meta_info.txt"
    if text is not None:
        file.write_bytes(os.fsencode(text))
    assert refusal(hr, [lr], meta_info=file) == message.format(file=file, hr=hr, lr=lr)


def test_meta_info_with_lr_and_several_lr_folders(hr: Path, lr: Path, tmp_path: Path) -> None:
    file = tmp_path / "meta_info.txt"
    file.write_text("sky/img1.png, sky/img1x4.png")
    assert refusal(hr, [lr, hr], meta_info=file) == (
        f"{file} lists the LR image of each HR image; pass one --lr, that of these paths"
    )


# ---- LMDBs


@pytest.fixture
def hr_lmdb(hr: Path, tmp_path: Path) -> Path:
    return write_lmdb(tmp_path / "HR.lmdb", sorted(hr.rglob("*.png")), hr)


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _rewrite(content: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / "data.mdb").write_bytes(content((folder / "data.mdb").read_bytes()))


def _add_line(folder: Path) -> None:
    with open(folder / "meta_info.txt", "a") as file:
        file.write("sky/img8.png (48,48,3) 1\nsky/img9.png (48,48,3) 1\n")


_LAYOUT = "expected an LMDB as BasicSR's create_lmdb.py writes it, with data.mdb and meta_info.txt"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove("meta_info.txt"), f"{{lmdb}} has no meta_info.txt; {_LAYOUT}"),
        (_remove("data.mdb"), f"{{lmdb}} has no data.mdb; {_LAYOUT}"),
        (
            _add_line,
            "{lmdb}/meta_info.txt lists 2 of 5 images that are not in data.mdb, e.g. sky/img8.png, sky/img9.png; "
            "create the LMDB again",
        ),
        (
            _rewrite(lambda data: data[:8192]),
            "{lmdb}/data.mdb is truncated: expected {size:,} bytes, found 8,192; copy or create the LMDB again",
        ),
        (
            _rewrite(lambda data: b"foreign" * 2000),
            "{lmdb}/data.mdb is damaged (File is not an LMDB file); copy or create the LMDB again",
        ),
        (
            _rewrite(lambda data: data[:8192] + b"\xff" * (len(data) - 8192)),
            "{lmdb}/data.mdb is damaged (Located page was wrong type); copy or create the LMDB again",
        ),
    ],
)
def test_damaged_or_foreign_lmdb(damage: Callable[[Path], object], message: str, hr_lmdb: Path, lr: Path) -> None:
    size = (hr_lmdb / "data.mdb").stat().st_size
    damage(hr_lmdb)
    assert refusal(hr_lmdb, [lr]) == message.format(lmdb=hr_lmdb, size=size)


def test_lmdb_that_is_no_folder(hr: Path, tmp_path: Path) -> None:
    assert refusal(hr, [tmp_path / "none.lmdb"]) == f"{tmp_path / 'none.lmdb'} does not exist; {_LAYOUT}"
    (tmp_path / "file.lmdb").touch()
    assert refusal(hr, [tmp_path / "file.lmdb"]) == f"{tmp_path / 'file.lmdb'} is a file; {_LAYOUT}"


def test_lmdb_without_its_package(hr_lmdb: Path, lr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ModuleNotFoundError) as error:
        find_pairs(hr_lmdb, [lr])
    assert install_hint(error.value) == (
        "this requires lmdb, which is not installed; run `pip install 'sr-shards[lmdb]'` or, in a clone of sr-shards, "
        "`pip install -e '.[lmdb]'`"
    )


def test_lmdb_that_is_being_written(hr_lmdb: Path, lr: Path) -> None:
    ready, writing = os.pipe()
    child = os.fork()
    if not child:
        with open(hr_lmdb / "lock.mdb", "rb+") as file:
            fcntl.lockf(file, fcntl.LOCK_SH, 1)  # as an open LMDB environment does
            os.write(writing, b"x")
            signal.pause()
    try:
        os.read(ready, 1)
        assert refusal(hr_lmdb, [lr]) == (
            f"{hr_lmdb} is open in another process, which may be writing to it; wait until that has ended"
        )
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(writing)
    assert len(find_pairs(hr_lmdb, [lr]).pairs) == len(NAMES)


def test_missing_images_of_an_lmdb_are_failures_by_name(hr_lmdb: Path, lr: Path) -> None:
    photo = find_pairs(hr_lmdb, [lr]).pairs[0].hr
    with pytest.raises(PhotoError, match="not in the LMDB"):
        read_source(hr_lmdb, photo._replace(path="gone.png"))


def test_lmdb_in_a_store(hr: Path) -> None:
    address = parse_address("memory://bucket/LR.lmdb")
    assert refusal(hr, [address]) == f"{address}: an LMDB is read from a local disk only; copy it there first"
