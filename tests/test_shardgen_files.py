"""Codecs, tars and large files: what is written is what was meant, or nothing."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shardgen.shard.writer import ShardWriter
from srshards.errors import RunError
from srshards.format import CODECS, MAX_SIZE_PX
from srshards.imaging import codec
from srshards.imaging.pixels import Pixels
from srshards.shards.tar_index import load_index
from srshards.storage.files import HashedFile, replacing, write_atomically, writing

images = st.tuples(st.integers(1, 50), st.integers(1, 50), st.integers(0, 2**32 - 1), st.sampled_from([2, 256])).map(
    lambda t: np.random.default_rng(t[2]).integers(0, t[3], (t[0], t[1], 3), dtype=np.uint8)
)


@pytest.mark.parametrize("name", CODECS)
@given(pixels=images)
def test_every_codec_is_lossless(name: str, pixels: Pixels) -> None:
    assert np.array_equal(codec.decode(name, b"".join(codec.encode(name, pixels))), pixels)


@given(pixels=images)
def test_our_png_is_anyones_png(pixels: Pixels) -> None:
    image = Image.open(io.BytesIO(b"".join(codec.encode("png", pixels))))
    image.verify()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(b"".join(codec.encode("png", pixels))))), pixels)


def test_npy_is_numpys_own() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)[:, ::-1]
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(pixels))
    assert b"".join(codec.encode("npy", pixels)) == stream.getvalue()


@pytest.mark.parametrize("name", CODECS)
def test_a_damaged_member_is_refused(name: str) -> None:
    data = b"".join(codec.encode(name, np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)))
    for cut in (0, 1, 20, len(data) // 2):
        with pytest.raises(RunError, match=f"cannot be decoded as {name}"):
            codec.decode(name, data[:cut])


def test_a_member_of_another_kind_is_refused() -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros((4, 4), np.uint8))
    with pytest.raises(RunError, match="expected H x W x 3 uint8"):
        codec.decode("npy", stream.getvalue())
    with pytest.raises(RunError, match="extra bytes after the array"):
        codec.decode("npy", b"".join(codec.encode("npy", np.zeros((4, 4, 3), np.uint8))) + b"x")
    stream = io.BytesIO()
    Image.new("L", (4, 4)).save(stream, "PNG")
    with pytest.raises(RunError, match="expected RGB, found L"):
        codec.decode("png", stream.getvalue())
    stream = io.BytesIO()
    np.save(stream, np.array([{}]), allow_pickle=True)
    with pytest.raises(RunError, match="cannot be decoded as npy"):
        codec.decode("npy", stream.getvalue())


@settings(max_examples=30)
@given(sizes=st.lists(st.sampled_from([0, 1, 511, 512, 4095, 4096, 100_000, (4 << 20) - 1, 4 << 20]), max_size=6))
def test_a_large_file_is_the_sum_of_its_pieces(sizes: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "large.bin"
    pieces = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    file = HashedFile(path)
    file.write(pieces)
    sha256 = file.commit()
    assert path.read_bytes() == b"".join(pieces)
    assert sha256 == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert file.size == sum(sizes)


def test_a_file_has_no_name_before_it_is_whole(tmp_path: Path) -> None:
    file = HashedFile(tmp_path / "large.bin")
    file.write([bytes(9 << 20)])
    assert not (tmp_path / "large.bin").exists()
    file.abort()
    assert list(tmp_path.iterdir()) == []
    file.abort()


def test_a_file_that_cannot_be_renamed_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "taken", b"x")
    file = HashedFile(tmp_path / "taken")
    with pytest.raises(OSError, match="directory"):
        file.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_file_that_was_not_finished_leaves_the_old_one(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "folder" / "file", b"old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "new" / "folder" / "file") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in temporary.parent.iterdir()} == {"file": b"old"}


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "below"
    with pytest.raises(RunError, match=rf"^cannot write {target}: File exists$"), writing(target):
        write_atomically(target, b"x")


def test_the_page_cache_is_no_condition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On systems without O_DIRECT the same bytes are written the ordinary way."""
    monkeypatch.delattr("os.O_DIRECT")
    file = HashedFile(tmp_path / "plain.bin")
    file.write([bytes(range(256)) * 40_000])
    file.commit()
    assert (tmp_path / "plain.bin").read_bytes() == bytes(range(256)) * 40_000


def test_a_shard_is_a_tar_with_its_index(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, tmp_path, "train-000000", "train")
    for number in range(3):
        writer.add(f"{number:012d}", [("hr.npy", [b"abc", b"de"]), ("json", [b"{}" * 300])])
    record = writer.commit()
    assert record is not None and (record.samples, record.bytes) == (3, (tmp_path / "train-000000.tar").stat().st_size)
    index = load_index(tmp_path / "train-000000.idx")
    data = (tmp_path / "train-000000.tar").read_bytes()
    with tarfile.open(tmp_path / "train-000000.tar") as archive:
        assert [m.name for m in archive] == [member.name for sample in index for member in sample]
        for member in (member for sample in index for member in sample):
            inside = archive.extractfile(member.name)
            assert inside is not None and inside.read() == data[member.offset : member.offset + member.size]


def test_a_shard_without_samples_is_no_file(tmp_path: Path) -> None:
    assert ShardWriter(tmp_path, tmp_path, "train-000000", "train").commit() is None
    assert list(tmp_path.iterdir()) == []


def test_reading_an_array_parses_no_python() -> None:
    """NumPy parses headers as Python, at which CPython 3.11 fails now and then when several threads do."""
    data = b"".join(codec.encode("npy", np.zeros((5, 7, 3), np.uint8)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ast.literal_eval", None)
        patched.setattr("ast.parse", None)
        assert codec.decode("npy", data).shape == (5, 7, 3)


def test_an_array_that_is_not_there_takes_no_memory() -> None:
    """Where the header asks for more than there is, that is damage and no lack of memory."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**7, 10**7, 3)})
    with pytest.raises(RunError, match=r"cannot be decoded as npy \(the array is truncated\)"):
        codec.decode("npy", header.getvalue() + bytes(100))


@pytest.mark.parametrize("name", ["png", "webp"])
def test_an_image_that_is_larger_than_any_takes_no_memory(name: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (MAX_SIZE_PX + 1, 1)).save(stream, name)
    with pytest.raises(RunError, match=rf"cannot be decoded as {name} \(expected at most {MAX_SIZE_PX} px, found "):
        codec.decode(name, stream.getvalue())
