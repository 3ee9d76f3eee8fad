"""`generate --exclude FILE`: listed photos are treated as absent."""

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
EXCLUDED = ("class0/img0.jpg", "class1/img4.png", "class2/img11.jpg")


def _without(photos: Path, folder: Path, names: tuple[str, ...]) -> Path:
    photos_copy = Path(shutil.copytree(photos, folder))
    for name in names:
        (photos_copy / name).unlink()
    return photos_copy


def test_excluded_photos_give_the_shards_of_a_folder_without_them(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "exclude.txt").write_text("# three of forty\n\n" + "\n".join(EXCLUDED) + "\n")
    result = generate(photos, tmp_path / "a", *ARGS, "--exclude", tmp_path / "exclude.txt")
    assert "Exclude 3 photos listed in exclude.txt" in result.stdout
    assert "37 of 37" in result.stdout and "not found in the input" not in result.stdout
    assert json.loads((tmp_path / "a" / "processing_stats.json").read_text())["excluded"] == 3
    generate(_without(photos, tmp_path / "photos", EXCLUDED), tmp_path / "b", *ARGS)
    assert contract_files(tmp_path / "a") == contract_files(tmp_path / "b")
    assert all_files(tmp_path / "a") == all_files(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "processing_stats.json").read_text())["excluded"] == 0


def test_only_affected_shards_are_rebuilt(photos: Path, shards: Path, shards_copy: Path, tmp_path: Path) -> None:
    tars = sorted(shards_copy.rglob("*.tar"))
    before = {tar: tar.stat().st_mtime_ns for tar in tars}
    (tmp_path / "exclude.txt").write_text("class0/img0.jpg\n")
    args = (*ARGS, "--exclude", tmp_path / "exclude.txt")
    result = generate(photos, shards_copy, *args)
    assert f"Shards: 2 built, {len(tars) - 2} kept, 2 removed." in result.stdout  # one of each scale
    assert sum(tar.stat().st_mtime_ns != before[tar] for tar in tars) == 2
    again = generate(photos, shards_copy, *args)
    lines = [
        f"Photos  39 of 39 in {photos} (38 train, 1 val)",
        "Exclude 1 photo listed in exclude.txt",
        f"All {len(tars)} shards are up to date.",
    ]
    assert again.stdout.splitlines() == lines
    generate(photos, shards_copy, *ARGS)  # without --exclude, the shards are the original ones
    assert contract_files(shards_copy) == contract_files(shards)


def test_unknown_paths_are_reported(photos: Path, tmp_path: Path) -> None:
    names = [f"class9/gone{number}.jpg" for number in range(5)]
    (tmp_path / "exclude.txt").write_text("\n".join([*names, EXCLUDED[0]]))
    result = run_cli("generate", "-i", photos, "-o", tmp_path / "a", "--exclude", tmp_path / "exclude.txt", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "Exclude 1 photo listed in exclude.txt" in result.stdout
    assert "5 paths in exclude.txt not found in the input: class9/gone0.jpg, class9/gone1.jpg" in result.stdout
    assert "class9/gone2.jpg, ...\n" in result.stdout


def test_singular_forms_are_used_for_one_item(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 2)
    (photos / "notes.txt").write_text("no photo")
    (tmp_path / "exclude.txt").write_text("class0/img0.jpg\nclass9/gone.jpg\n")
    args = ("--val-fraction", 0, "--exclude", tmp_path / "exclude.txt")
    first, again = (generate(photos, tmp_path / "a", *args).stdout for _ in range(2))
    assert "(1 train, 0 val), 1 other file ignored\n" in first
    assert "Exclude 1 photo listed in exclude.txt\n" in first
    assert "  1 path in exclude.txt not found in the input: class9/gone.jpg\n" in first
    assert "npy: 1 shard to build (1 sample)\n" in first
    assert f"{tmp_path}/a/scale_4x: 1 sample in 1 shard, " in first and "1 photo in " in first
    assert again.endswith("The only shard is up to date.\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"/home/me/photos/class0/img0.jpg\n", "exclude.txt lists no photo of the input: expected paths"),
        (b"class0\\img0.jpg\n", "such as class0/img0.jpg, found e.g. "),
        (b"class0/img0.jpg\nsky/\xe9t\xe9.jpg\n", "exclude.txt, line 2 is not UTF-8"),
        (b'# a\n\n"class0/img0.jpg\n', "exclude.txt, line 3 begins with a quotation mark but is not a JSON string"),
        (
            b"class0/img0.jpg\n" + bytes(2**17),
            "exclude.txt, line 2 is too long for a path; pass a text file",
        ),
        (b'"class0/img0.jpg" # why\n', "exclude.txt, line 1 begins with a quotation mark"),
        (
            "\n".join(f"class{n % 3}/img{n}.{'png' if n % 5 == 4 else 'jpg'}" for n in range(40)).encode(),
            "exclude.txt lists every photo of the input; list fewer",
        ),
    ],
    ids=["absolute", "backslashes", "not UTF-8", "unclosed", "endless line", "trailing text", "all"],
)
def test_invalid_exclude_file_is_an_error(content: bytes, message: str, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "exclude.txt").write_bytes(content)
    result = generate(photos, tmp_path / "a", "--exclude", tmp_path / "exclude.txt", expect=2)
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not list((tmp_path / "a").rglob("*.tar"))


@pytest.mark.parametrize("name", ["missing.txt", "folder", "s3://bucket/exclude.txt"])
def test_unreadable_exclude_file_is_an_error(name: str, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    path = name if "://" in name else tmp_path / name
    result = generate(photos, tmp_path / "a", "--exclude", path, expect=2)
    assert str(path) in result.stderr and "Traceback" not in result.stderr
    expected = "is in an object store; expected a local path" if "://" in name else "cannot read"
    assert expected in result.stderr


def test_endless_exclude_file_is_rejected_early() -> None:
    with pytest.raises(UsageError, match="/dev/zero, line 1 is too long for a path"):
        read_exclude_file(Path("/dev/zero"))


def test_empty_exclude_file_excludes_nothing(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "exclude.txt").write_text("# nothing yet\n\n")
    result = run_cli("generate", "-i", photos, "-o", tmp_path / "a", "--exclude", tmp_path / "exclude.txt", "--dry-run")
    assert "Exclude 0 photos" in result.stdout and "40 of 40" in result.stdout


def test_windows_files_and_json_strings_are_read(tmp_path: Path) -> None:
    file = tmp_path / "exclude.txt"
    file.write_bytes(b'\xef\xbb\xbf./a/b.jpg\r\n#x\r\n \t\r\n  c d.jpg \r\n"\\udce9 \\n#.jpg"\r\na/b.jpg')
    assert read_exclude_file(file) == ["a/b.jpg", "c d.jpg", "\udce9 \n#.jpg"]


@pytest.mark.parametrize(
    "name", [b"\xe9t\xe9.jpg", b"two\nlines.jpg", b"#1.jpg", b'"a".jpg', b" a.jpg", b"<b>.jpg", b"\xef\xbb\xbfa.jpg"]
)
def test_any_file_name_can_be_excluded(name: bytes, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 3)
    os.rename(photos / "class0" / "img0.jpg", os.fsencode(photos) + b"/" + name)
    (tmp_path / "exclude.txt").write_text(exclude_line(os.fsdecode(name)) + "\n", encoding="utf-8")
    result = generate(photos, tmp_path / "a", "--exclude", tmp_path / "exclude.txt")
    assert "Exclude 1 photo listed" in result.stdout and "2 of 2" in result.stdout


_NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/")
    | st.sampled_from("\udc80\udcff\n\r\x1c\x85\u2028\ufeff #\"'\\./")
    , min_size=1, max_size=12,
).filter(lambda name: not name.startswith("./"))  # fmt: skip


@given(st.lists(_NAMES, min_size=1, max_size=6, unique=True))
def test_every_list_of_names_round_trips(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    file = tmp_path_factory.getbasetemp() / "round_trip.txt"
    file.write_bytes("".join(exclude_line(name) + "\n" for name in names).encode())
    assert read_exclude_file(file) == names


def test_leave_out_counts_photos_not_lines(tmp_path: Path) -> None:
    (tmp_path / "exclude.txt").write_text("a.jpg\na.jpg\nb.jpg\n")
    listing = Listing([Photo(name, 1, 1) for name in ("a.jpg", "c.jpg")], 7, 8)
    remaining, excluded = leave_out(listing, tmp_path / "exclude.txt")
    assert remaining == Listing([Photo("c.jpg", 1, 1)], 7, 8)
    assert (excluded.num_photos, excluded.unknown) == (1, ("b.jpg",))
    with pytest.raises(UsageError, match=r"lists no photo of the input: .* such as c\.jpg"):
        leave_out(remaining, tmp_path / "exclude.txt")
