"""Codecs, tars and atomic files."""

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


def test_unknown_codec_is_refused() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=f"^expected codec {', '.join(CODECS)}, got 'exe'$"):
        codec.encode("exe", pixels)
    with pytest.raises(RunError, match="cannot be decoded as exe"):
        codec.decode("exe", b"".join(codec.encode("png", pixels)))


@given(pixels=images)
def test_png_is_readable_by_pillow(pixels: Pixels) -> None:
    image = Image.open(io.BytesIO(b"".join(codec.encode("png", pixels))))
    image.verify()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(b"".join(codec.encode("png", pixels))))), pixels)


def test_npy_equals_numpy_save() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)[:, ::-1]
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(pixels))
    assert b"".join(codec.encode("npy", pixels)) == stream.getvalue()


@pytest.mark.parametrize("name", CODECS)
def test_truncated_member_is_rejected(name: str) -> None:
    data = b"".join(codec.encode(name, np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)))
    for cut in (0, 1, 20, len(data) // 2):
        with pytest.raises(RunError, match=f"cannot be decoded as {name}"):
            codec.decode(name, data[:cut])


def test_unsupported_member_is_rejected() -> None:
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
def test_hashed_file_contains_its_pieces(sizes: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "large.bin"
    pieces = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    file = HashedFile(path)
    file.write(pieces)
    sha256 = file.commit()
    assert path.read_bytes() == b"".join(pieces)
    assert sha256 == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert file.size == sum(sizes)


def test_hashed_file_appears_on_commit_only(tmp_path: Path) -> None:
    file = HashedFile(tmp_path / "large.bin")
    file.write([bytes(9 << 20)])
    assert not (tmp_path / "large.bin").exists()
    file.abort()
    assert list(tmp_path.iterdir()) == []
    file.abort()


def test_failed_rename_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "taken", b"x")
    file = HashedFile(tmp_path / "taken")
    with pytest.raises(OSError, match="directory"):
        file.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_interrupted_replacement_keeps_the_old_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "folder" / "file", b"old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "new" / "folder" / "file") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in temporary.parent.iterdir()} == {"file": b"old"}


def test_write_error_contains_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "below"
    with pytest.raises(RunError, match=rf"^cannot write {target}: File exists$"), writing(target):
        write_atomically(target, b"x")


def test_hashed_file_works_without_o_direct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.O_DIRECT")
    file = HashedFile(tmp_path / "plain.bin")
    file.write([bytes(range(256)) * 40_000])
    file.commit()
    assert (tmp_path / "plain.bin").read_bytes() == bytes(range(256)) * 40_000


def test_shard_is_a_tar_with_its_index(tmp_path: Path) -> None:
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
            member_file = archive.extractfile(member.name)
            assert member_file is not None and member_file.read() == data[member.offset : member.offset + member.size]


def test_shard_without_samples_writes_no_file(tmp_path: Path) -> None:
    assert ShardWriter(tmp_path, tmp_path, "train-000000", "train").commit() is None
    assert list(tmp_path.iterdir()) == []


def test_npy_is_decoded_without_the_python_parser() -> None:
    """NumPy parses npy headers with `ast`, which occasionally fails in concurrent threads of CPython 3.11."""
    data = b"".join(codec.encode("npy", np.zeros((5, 7, 3), np.uint8)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ast.literal_eval", None)
        patched.setattr("ast.parse", None)
        assert codec.decode("npy", data).shape == (5, 7, 3)


def test_truncated_array_is_not_allocated() -> None:
    """A header that announces too large an array is reported as damage, not as a memory error."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**7, 10**7, 3)})
    with pytest.raises(RunError, match=r"cannot be decoded as npy \(the array is truncated\)"):
        codec.decode("npy", header.getvalue() + bytes(100))


@pytest.mark.parametrize("name", ["png", "webp"])
def test_oversized_image_is_not_decoded(name: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (MAX_SIZE_PX + 1, 1)).save(stream, name)
    with pytest.raises(RunError, match=rf"cannot be decoded as {name} \(expected at most {MAX_SIZE_PX} px, found "):
        codec.decode(name, stream.getvalue())
