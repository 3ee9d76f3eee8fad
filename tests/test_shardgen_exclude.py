"""`generate --exclude FILE`: photos that are named are as if they were not there."""

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers import all_files, contract_files, generate, make_photos, run_cli
from hypothesis import given
from hypothesis import strategies as st

from shardgen.planning.exclusion import exclude_line, leave_out, read_exclude_file
from shardgen.planning.sources import Listing, Photo
from srshards.errors import UsageError

ARGS = ("-s", 2, 3, "--shard-bytes", "300KB")
SOME = ("class0/img0.jpg", "class1/img4.png", "class2/img11.jpg")


def _without(photos: Path, folder: Path, names: tuple[str, ...]) -> Path:
    copied = Path(shutil.copytree(photos, folder))
    for name in names:
        (copied / name).unlink()
    return copied


def test_the_shards_are_those_of_a_folder_without_the_photos(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "exclude.txt").write_text("# three of forty\n\n" + "\n".join(SOME) + "\n")
    done = generate(photos, tmp_path / "a", *ARGS, "--exclude", tmp_path / "exclude.txt")
    assert "Exclude 3 photos listed in exclude.txt" in done.stdout
    assert "37 of 37" in done.stdout and "not found in the input" not in done.stdout
    assert json.loads((tmp_path / "a" / "processing_stats.json").read_text())["excluded"] == 3
    generate(_without(photos, tmp_path / "photos", SOME), tmp_path / "b", *ARGS)
    assert contract_files(tmp_path / "a") == contract_files(tmp_path / "b")
    assert all_files(tmp_path / "a") == all_files(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "processing_stats.json").read_text())["excluded"] == 0


def test_only_touched_shards_are_made_again(photos: Path, shards: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(shards, tmp_path / "shards"))
    tars = sorted(output.rglob("*.tar"))
    before = {tar: tar.stat().st_mtime_ns for tar in tars}
    (tmp_path / "exclude.txt").write_text("class0/img0.jpg\n")
    args = (*ARGS, "--exclude", tmp_path / "exclude.txt")
    done = generate(photos, output, *args)
    assert f"Shards: 2 built, {len(tars) - 2} kept, 2 removed." in done.stdout  # one of each scale
    assert sum(tar.stat().st_mtime_ns != before[tar] for tar in tars) == 2
    again = generate(photos, output, *args)
    lines = [
        f"Photos  39 of 39 in {photos} (38 train, 1 val)",
        "Exclude 1 photo listed in exclude.txt",
        f"All {len(tars)} shards are up to date.",
    ]
    assert again.stdout.splitlines() == lines
    generate(photos, output, *ARGS)  # and with them again, all is as it was
    assert contract_files(output) == contract_files(shards)


def test_names_that_no_photo_has_are_said(photos: Path, tmp_path: Path) -> None:
    names = [f"class9/gone{number}.jpg" for number in range(5)]
    (tmp_path / "exclude.txt").write_text("\n".join([*names, SOME[0]]))
    done = run_cli("generate", "-i", photos, "-o", tmp_path / "a", "--exclude", tmp_path / "exclude.txt", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "Exclude 1 photo listed in exclude.txt" in done.stdout
    assert "5 paths in exclude.txt not found in the input: class9/gone0.jpg, class9/gone1.jpg" in done.stdout
    assert "class9/gone2.jpg, ...\n" in done.stdout


def test_one_of_a_thing_is_not_called_many(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 2)
    (photos / "notes.txt").write_text("no photo")
    (tmp_path / "exclude.txt").write_text("class0/img0.jpg\nclass9/gone.jpg\n")
    args = ("--val-fraction", 0, "--exclude", tmp_path / "exclude.txt")
    made, again = (generate(photos, tmp_path / "a", *args).stdout for _ in range(2))
    assert "(1 train, 0 val), 1 other file ignored\n" in made
    assert "Exclude 1 photo listed in exclude.txt\n" in made
    assert "  1 path in exclude.txt not found in the input: class9/gone.jpg\n" in made
    assert "npy: 1 shard to build (1 sample)\n" in made
    assert f"{tmp_path}/a/scale_4x: 1 sample in 1 shard, " in made and "1 photo in " in made
    assert again.endswith("The only shard is up to date.\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"/home/me/photos/class0/img0.jpg\n", "none of the 1 paths in"),
        (b"class0\\img0.jpg\n", "Expected paths relative to --input such as class0/img0.jpg"),
        (b"class0/img0.jpg\nsky/\xe9t\xe9.jpg\n", "exclude.txt, line 2 is not UTF-8"),
        (b'# a\n\n"class0/img0.jpg\n', "exclude.txt, line 3 begins with a quotation mark but is not a JSON string"),
        (
            b"class0/img0.jpg\n" + bytes(2**17),
            "exclude.txt, line 2 is too long for a path. --exclude expects a text file",
        ),
        (b'"class0/img0.jpg" # why\n', "exclude.txt, line 1 begins with a quotation mark"),
        (
            "\n".join(f"class{n % 3}/img{n}.{'png' if n % 5 == 4 else 'jpg'}" for n in range(40)).encode(),
            "lists all ",
        ),
    ],
    ids=["absolute", "backslashes", "not UTF-8", "unclosed", "endless line", "more behind", "all"],
)
def test_a_file_that_cannot_be_meant_is_refused(content: bytes, message: str, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "exclude.txt").write_bytes(content)
    done = generate(photos, tmp_path / "a", "--exclude", tmp_path / "exclude.txt", expect=2)
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "a").rglob("*.tar"))


@pytest.mark.parametrize("name", ["missing.txt", "folder", "s3://bucket/exclude.txt"])
def test_a_file_that_cannot_be_read_is_named(name: str, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    path = name if "://" in name else tmp_path / name
    done = generate(photos, tmp_path / "a", "--exclude", path, expect=2)
    assert str(path) in done.stderr and "Traceback" not in done.stderr
    expected = "is in an object store; expected a local path" if "://" in name else "cannot read"
    assert expected in done.stderr


def test_a_file_without_an_end_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="/dev/zero, line 1 is too long for a path"):
        read_exclude_file(Path("/dev/zero"))


def test_an_empty_file_leaves_nothing_out(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "exclude.txt").write_text("# nothing yet\n\n")
    done = run_cli("generate", "-i", photos, "-o", tmp_path / "a", "--exclude", tmp_path / "exclude.txt", "--dry-run")
    assert "Exclude 0 photos" in done.stdout and "40 of 40" in done.stdout


def test_windows_files_and_odd_names_are_understood(tmp_path: Path) -> None:
    file = tmp_path / "exclude.txt"
    file.write_bytes(b'\xef\xbb\xbf./a/b.jpg\r\n#x\r\n \t\r\n  c d.jpg \r\n"\\udce9 \\n#.jpg"\r\na/b.jpg')
    assert read_exclude_file(file) == ["a/b.jpg", "c d.jpg", "\udce9 \n#.jpg"]


@pytest.mark.parametrize(
    "name", [b"\xe9t\xe9.jpg", b"two\nlines.jpg", b"#1.jpg", b'"a".jpg', b" a.jpg", b"<b>.jpg", b"\xef\xbb\xbfa.jpg"]
)
def test_any_name_can_be_left_out(name: bytes, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 3)
    os.rename(photos / "class0" / "img0.jpg", os.fsencode(photos) + b"/" + name)
    (tmp_path / "exclude.txt").write_text(exclude_line(os.fsdecode(name)) + "\n", encoding="utf-8")
    done = generate(photos, tmp_path / "a", "--exclude", tmp_path / "exclude.txt")
    assert "Exclude 1 photo listed" in done.stdout and "2 of 2" in done.stdout


_NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/")
    | st.sampled_from("\udc80\udcff\n\r\x1c\x85\u2028\ufeff #\"'\\./")
    , min_size=1, max_size=12,
).filter(lambda name: not name.startswith("./"))  # fmt: skip


@given(st.lists(_NAMES, min_size=1, max_size=6, unique=True))
def test_every_list_of_names_comes_back(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    file = tmp_path_factory.getbasetemp() / "round_trip.txt"
    file.write_bytes("".join(exclude_line(name) + "\n" for name in names).encode())
    assert read_exclude_file(file) == names


def test_leave_out_counts_photos_and_not_lines(tmp_path: Path) -> None:
    (tmp_path / "exclude.txt").write_text("a.jpg\na.jpg\nb.jpg\n")
    listing = Listing([Photo(name, 1, 1) for name in ("a.jpg", "c.jpg")], 7, 8)
    left, excluded = leave_out(listing, tmp_path / "exclude.txt")
    assert left == Listing([Photo("c.jpg", 1, 1)], 7, 8)
    assert (excluded.num_photos, excluded.unknown) == (1, ("b.jpg",))
    with pytest.raises(UsageError, match=r"none of the 2 paths .* such as c\.jpg"):
        leave_out(left, tmp_path / "exclude.txt")
