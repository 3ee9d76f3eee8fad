"""Pairs found in folders, stores and LMDBs that people have."""

import io
from pathlib import Path

import numpy as np
import pytest
from helpers import run_cli
from pair_folders import NAMES, image, images, matched, named, old_scripts, write_lmdb
from PIL import Image

from shardgen.pairs.find import find_pairs
from shardgen.pairs.source import read_source
from shardgen.planning.sources import Photo
from srshards.storage.store import parse_address
from tests.drill.s3_server import Bucket

# ---- layouts


def test_folders_of_the_old_scripts(tmp_path: Path) -> None:
    hr = images(tmp_path / "OST", named("{}.jpg"))
    for scale in (2, 4):
        old_scripts(tmp_path / "OST_LR", scale, 48 // scale)
    (tmp_path / "OST_LR/processing_stats.json").write_text("{}")
    listing = find_pairs(hr, [tmp_path / "OST_LR"])
    assert listing.scales == (2, 4)
    assert listing.lr_roots == listing.up_roots == {s: tmp_path / f"OST_LR/scale_{s}x" for s in (2, 4)}
    assert matched(listing) == {f"{name}.jpg": [(2, f"{name}_lr_2x.png"), (4, f"{name}_lr_4x.png")] for name in NAMES}
    pair = listing.pairs[0]
    assert [(s, up.path) for s, up in pair.ups] == [(s, f"mountain/img1_upsampled_{s}x.png") for s in (2, 4)]
    assert (pair.class_name, pair.size) == ("mountain", (hr / "mountain/img1.jpg").stat().st_size)
    assert pair.hr == Photo(pair.path, pair.size, (hr / pair.path).stat().st_mtime_ns)
    assert listing.num_ignored == 1 and listing.notes == ()


def test_one_scale_of_the_old_scripts_and_photos_around_it(tmp_path: Path) -> None:
    hr = images(tmp_path / "OST", named("{}.jpg"))
    old_scripts(hr / "OST_LR", 4)
    listing = find_pairs(hr, [hr / "OST_LR/scale_4x"])
    assert listing.scales == (4,) and list(matched(listing)) == named("{}.jpg"), "LR below HR is not HR"


def test_the_output_of_unpack(shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "unpacked"
    assert run_cli("unpack", shards / "scale_2x", "-o", root).returncode == 0
    image(root / "scale_2x/class0/img0_lr1_2x.png", 32)
    listing = find_pairs(root, [root])
    assert listing.hr_root == root / "scale_2x"
    assert listing.lr_roots == listing.up_roots == {2: root / "scale_2x"}
    assert len(listing.pairs) == 40
    assert all(pair.path.endswith("_hr.png") for pair in listing.pairs)
    assert {pair.class_name for pair in listing.pairs} == {"class0", "class1", "class2"}
    assert listing.notes == (f"left out 1 further LR variant in {root / 'scale_2x'}: class0/img0_lr1_2x.png",)


@pytest.mark.parametrize("as_parent", [False, True])
def test_div2k(as_parent: bool, tmp_path: Path) -> None:
    hr = images(tmp_path / "DIV2K_train_HR", ["0001.png", "0002.png"])
    lr = tmp_path / "DIV2K_train_LR_bicubic"
    for scale in (2, 3, 4):
        images(lr / f"X{scale}", [f"0001x{scale}.png", f"0002x{scale}.png"], 48 // scale)
    listing = find_pairs(hr, [lr] if as_parent else [lr / "X4", lr / "X2"])
    assert listing.scales == ((2, 3, 4) if as_parent else (2, 4))
    assert listing.lr_roots[4] == lr / "X4" and not listing.up_roots
    assert matched(listing)["0002.png"] == [(scale, f"0002x{scale}.png") for scale in listing.scales]


@pytest.mark.parametrize(
    ("hr", "lr", "hr_name", "lr_name"),
    [
        ("hq", "lq", "{}.png", "{}.png"),
        ("GT", "LQ", "{}.png", "{}.jpg"),
        ("HR", "LRbicx4", "{}.png", "{}.png"),
        ("GTmod12", "LRbicx4", "{}.png", "{}.png"),
        ("DIV2K_valid_HR", "DIV2K_valid_LR_mild", "{}.png", "{}x4m.png"),
    ],
)
def test_folders_named_for_hr_and_lr_below_one(hr: str, lr: str, hr_name: str, lr_name: str, tmp_path: Path) -> None:
    images(tmp_path / hr, named(hr_name))
    images(tmp_path / lr, named(lr_name), 12)
    listing = find_pairs(tmp_path, [tmp_path])
    assert matched(listing) == {hr_name.format(name): [(4, lr_name.format(name))] for name in NAMES}
    assert listing.notes == (f"{tmp_path}: HR is read from {hr}, LR from {lr}",)
    explicit = find_pairs(tmp_path / hr, [tmp_path / lr])
    assert (explicit.pairs, explicit.notes) == (listing.pairs, ())
    assert find_pairs(tmp_path).pairs == listing.pairs


def test_the_layout_of_benchmarks(tmp_path: Path) -> None:
    images(tmp_path / "GTmod12", ["baby.png", "bird.png"])
    images(tmp_path / "original", ["baby.png"], 51)
    for scale in (2, 3, 4):
        images(tmp_path / f"LRbicx{scale}", ["baby.png", "bird.png"], 48 // scale)
    listing = find_pairs(tmp_path)
    assert listing.lr_roots == {scale: tmp_path / f"LRbicx{scale}" for scale in (2, 3, 4)}
    assert matched(listing)["bird.png"] == [(2, "bird.png"), (3, "bird.png"), (4, "bird.png")]


def test_hr_and_lr_in_one_folder(tmp_path: Path) -> None:
    root = images(tmp_path / "image_SRF_4", ["img_001_SRF_4_HR.png", "img_002_SRF_4_HR.png"])
    images(root, ["img_001_SRF_4_LR.png", "img_002_SRF_4_LR.png"], 12)
    assert matched(find_pairs(root))["img_002_SRF_4_HR.png"] == [(4, "img_002_SRF_4_LR.png")]
    root = images(tmp_path / "mixed", named("{}.png"))
    images(root, named("{}x3.png"), 16)
    assert matched(find_pairs(root)) == {f"{name}.png": [(3, f"{name}x3.png")] for name in NAMES}


@pytest.mark.parametrize(
    ("pattern", "hr", "lr"),
    [
        ("{name}_LRBI_x{scale}", "{}.png", "{}_LRBI_x4.png"),
        ("{name}_HR_x{scale}:{name}_LRBI_x{scale}", "{}_HR_x4.png", "{}_LRBI_x4.png"),
        ("low-{name}", "{0}.png", None),
        ("hr/{name}:lr/{name}", "hr/{}.png", "lr/{}.png"),
        ("{name}/hr:{name}/lr", "{}/hr.png", "{}/lr.png"),
    ],
)
def test_pattern(pattern: str, hr: str, lr: str | None, tmp_path: Path) -> None:
    names = ["sky/img1", "sky/img2"]
    lrs = named(lr, names) if lr else ["sky/low-img1.png", "sky/low-img2.png"]
    images(tmp_path / "a", named(hr, names))
    images(tmp_path / "b", [*lrs, "sky/other-name.png"], 12)
    listing = find_pairs(tmp_path / "a", [tmp_path / "b"], pattern=pattern)
    assert matched(listing) == {h: [(4, lr)] for h, lr in zip(named(hr, names), lrs, strict=True)}
    assert listing.notes == (f"left out 1 image not matching --pattern in {tmp_path / 'b'}: sky/other-name.png",)


def test_upsampled_images_in_folders_of_their_own(tmp_path: Path) -> None:
    hr = images(tmp_path / "HR", named("{}.png"))
    lrs = [images(tmp_path / f"x{s}", named(f"{{}}x{s}.png"), 48 // s) for s in (2, 4)]
    up = tmp_path / "up"
    for scale in (2, 4):
        images(up / f"X{scale}", named("{}.png"))
    listing = find_pairs(hr, lrs, [up])
    assert listing.up_roots == {2: up / "X2", 4: up / "X4"}
    assert listing.pairs[1].ups[1][1].path == "mountain/img2.png"
    assert find_pairs(hr, lrs[:1], [up / "X2"]).up_roots == {2: up / "X2"}
    images(tmp_path / "plain", named("{}-up.png"))
    pattern = "{name}:{name}x{scale}:{name}-up"
    assert find_pairs(hr, lrs[:1], [tmp_path / "plain"], pattern).up_roots == {2: tmp_path / "plain"}
    lr = old_scripts(tmp_path / "OST_LR", 4)
    assert find_pairs(hr, [lr], [lr]).up_roots == {4: lr / "scale_4x"}, "the LR folder may be passed as --up too"


def test_names_that_fit_two_rules_are_matched_by_the_one_that_covers_all(tmp_path: Path) -> None:
    hr = images(tmp_path / "HR", ["img1.png", "img1x2.png"])
    lr = images(tmp_path / "LR", ["img1.png", "img1x2.png"], 12)
    assert matched(find_pairs(hr, [lr])) == {name: [(4, name)] for name in ("img1.png", "img1x2.png")}


# ---- BasicSR's text files and LMDBs


def test_meta_info_selects_hr_images(tmp_path: Path) -> None:
    hr = images(tmp_path / "HR", named("{}.png"))
    lr = images(tmp_path / "LR", [*named("{}.png"), "sky/not_in_hr.png"], 12)
    text = tmp_path / "meta_info.txt"
    text.write_bytes("\ufeffsky/img1.png (48,48,3)\r\n\r\nmountain/img1.png\n".encode())
    assert list(matched(find_pairs(hr, [lr], meta_info=text))) == ["mountain/img1.png", "sky/img1.png"]


def test_meta_info_with_hr_and_lr(tmp_path: Path) -> None:
    images(tmp_path / "data/gt", ["a b.png", "2.png", "3.png"])
    images(tmp_path / "data/lq", ["one.png", "two.png"], 16)
    text = tmp_path / "meta_info.txt"
    text.write_text("gt/a b.png, lq/two.png\ngt/2.png, lq/one.png\n")
    root = tmp_path / "data"
    expected = {"gt/2.png": [(3, "lq/one.png")], "gt/a b.png": [(3, "lq/two.png")]}
    for lrs in ([root], []):
        listing = find_pairs(root, lrs, meta_info=text)
        assert (listing.hr_root, listing.lr_roots) == (root, {3: root})
        assert matched(listing) == expected
    text.write_text("a b.png, two.png")
    assert matched(find_pairs(root / "gt", [root / "lq"], meta_info=text)) == {"a b.png": [(3, "two.png")]}


def test_lmdb(tmp_path: Path) -> None:
    hr, lr = images(tmp_path / "hr", named("{}.png")), images(tmp_path / "lr", named("{}.png"), 12)
    roots = [
        write_lmdb(tmp_path / f"{name}.lmdb", sorted(root.rglob("*.png")), root)
        for name, root in (("DIV2K_HR_sub", hr), ("DIV2K_LR_bicubic_X4_sub", lr))
    ]
    (roots[0] / "lock.mdb").unlink()
    (roots[1] / "lock.mdb").chmod(0)
    listing = find_pairs(roots[0], roots[1:])
    assert matched(listing) == {f"{name}.png": [(4, f"{name}.png")] for name in NAMES}
    assert listing.pairs[0].class_name == "mountain"
    for pair in listing.pairs:
        content = read_source(roots[1], pair.lrs[0][1])
        assert len(content) == pair.lrs[0][1].size
        with Image.open(io.BytesIO(content)) as found, Image.open(lr / pair.path) as expected:
            assert np.array_equal(np.asarray(found), np.asarray(expected))
    assert not (roots[0] / "lock.mdb").exists(), "nothing is written"


@pytest.mark.slow
def test_lmdb_is_readable_in_forked_and_new_processes(tmp_path: Path) -> None:
    import multiprocessing

    hr = images(tmp_path / "hr", named("{}.png"))
    root = write_lmdb(tmp_path / "hr.lmdb", sorted(hr.rglob("*.png")), hr)
    (photo, *_) = find_pairs(root, [write_lmdb(tmp_path / "lq.lmdb", *_smaller(tmp_path))]).pairs
    expected = read_source(root, photo.hr)
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.starmap(read_source, [(root, photo.hr)] * 4) == [expected] * 4, method


def _smaller(tmp_path: Path) -> tuple[list[Path], Path]:
    lr = images(tmp_path / "lr", named("{}.png"), 12)
    return sorted(lr.rglob("*.png")), lr


# ---- stores, options


def test_pairs_in_a_store(s3: Bucket, tmp_path: Path) -> None:
    hr = images(tmp_path / "HR", [f"{number:04}.png" for number in range(40)])
    lr = images(tmp_path / "LR", [f"{number:04}x4.png" for number in range(40)], 12)
    remote = [parse_address(s3.put_folder(root, root.name)) for root in (hr, lr)]
    s3.proxy.heal()
    listing = find_pairs(remote[0], remote[1:])
    assert matched(listing) == matched(find_pairs(hr, [lr]))
    assert s3.proxy.count("GET", "*.png") <= 2 * 16, "a bounded number of headers"
    pair = listing.pairs[7]
    assert read_source(remote[1], pair.lrs[0][1]) == (lr / pair.lrs[0][1].path).read_bytes()


def test_excluded_images_leave_out_their_lr(tmp_path: Path) -> None:
    hr = images(tmp_path / "OST", [*named("{}.jpg"), "sky/img1.png"])
    lr = old_scripts(tmp_path / "OST_LR", 4)
    exclude = tmp_path / "exclude.txt"
    exclude.write_text("mountain/img1.jpg\nsky/img1.png\nnone.jpg\n")
    listing = find_pairs(hr, [lr], exclude=exclude)
    assert list(matched(listing)) == ["mountain/img2.jpg", "sky/img1.jpg"]
    assert listing.excluded is not None
    assert (listing.excluded.num_photos, listing.excluded.unknown) == (2, ("none.jpg",))


def test_skip_unpaired_leaves_out_what_lacks_a_counterpart(tmp_path: Path) -> None:
    hr = images(tmp_path / "HR", named("{}.png"))
    lrs = [images(tmp_path / f"X{s}", named(f"{{}}x{s}.png"), 48 // s) for s in (2, 4)]
    (lrs[0] / "sky/img1x2.png").unlink()
    image(lrs[1] / "sky/img9x4.png", 12)
    listing = find_pairs(hr, lrs, skip_unpaired=True)
    assert list(matched(listing)) == ["mountain/img1.png", "mountain/img2.png"]
    assert listing.notes == (
        f"left out 1 HR image without LR image in {lrs[0]}: sky/img1.png",
        f"left out 1 LR image without HR image in {hr}: sky/img9x4.png",
    )


def test_the_listing_does_not_depend_on_the_order_of_the_disk(tmp_path: Path) -> None:
    names = named("{}.png", [f"{n:03}" for n in range(30)])
    for order, root in ((names, tmp_path / "a"), (names[::-1], tmp_path / "b")):
        images(root / "hr", order)
        images(root / "lr", order, 24)
    first, second = (find_pairs(root / "hr", [root / "lr"]) for root in (tmp_path / "a", tmp_path / "b"))
    assert matched(first) == matched(second) and list(matched(first)) == list(matched(second)) == sorted(names)
