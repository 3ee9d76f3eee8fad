"""The compiled core: the pixels of every kernel, the memory that it touches, bad arguments, and unreadable pages."""

import ctypes
import functools
import itertools
import mmap
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from helpers import TIMEOUT_S
from hypothesis import given, settings
from hypothesis import strategies as st
from truncated_file import PAGE, Bytes, TruncatedFile, map_of, random_bytes

from srshards import native
from srshards.native import ImageSize

Int64s = npt.NDArray[np.int64]

SOURCES = Path(native.__file__).parent
TESTS = Path(__file__).parent / "native"
KERNELS = ("plain", "avx2", "avx512")  # in the order of chosen_kernels.c
SIZES_PX = (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 48, 50, 63, 64, 96, 192, 256)

has_compiler = shutil.which("gcc") is not None
needs_compiler = pytest.mark.skipif(not has_compiler, reason="gcc is not installed")


def test_the_core_was_built() -> None:
    """Without a compiler the package installs all the same: nothing else would show that the core is missing."""
    if not has_compiler and not native.is_available():
        pytest.skip("gcc is not installed")
    assert native.is_available()


# ---- kernels


class Sizes(ctypes.Structure):
    """`srs_sizes`."""

    _fields_ = (("height", ctypes.c_int64), ("width", ctypes.c_int64), ("patch", ctypes.c_int64))


class ChosenKernels:
    """Stands in for the compiled module: the same code, with kernels that the test chooses."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        array = (ctypes.c_void_p, ctypes.c_int64)  # address, and number of items or bytes
        library.srs_copy_patches.argtypes = (*array, *array, Sizes, *array, ctypes.c_void_p)

    def choose(self, name: str) -> bool:
        """Return whether this processor supports these kernels."""
        return bool(self._library.srs_choose_kernels(KERNELS.index(name)))

    def copy_patches(self, *arguments: int) -> tuple[int, int]:
        failed = ctypes.c_int64()
        given = (*arguments[:4], Sizes(*arguments[4:7]), *arguments[7:])
        return self._library.srs_copy_patches(*given, ctypes.addressof(failed)), failed.value


@pytest.fixture(scope="module")
def chosen_kernels(tmp_path_factory: pytest.TempPathFactory) -> ChosenKernels:
    path = tmp_path_factory.mktemp("kernels") / "kernels.so"
    compile_core(path, "chosen_kernels.c", "-O3", "-fPIC", "-shared")
    return ChosenKernels(ctypes.CDLL(str(path)))


def compile_core(to: Path, source: str, *options: str) -> None:
    warnings = ("-Wall", "-Wextra", "-Werror")
    command = ["gcc", "-std=gnu11", *warnings, *options, f"-I{SOURCES}", TESTS / source, SOURCES / "guard.c", "-o", to]
    subprocess.run(command, check=True, timeout=TIMEOUT_S)


@pytest.fixture(params=["built", *(pytest.param(name, marks=needs_compiler) for name in KERNELS)])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The core as it was built, and each of its kernels that this processor supports."""
    name: str = request.param
    if name != "built":
        chosen: ChosenKernels = request.getfixturevalue("chosen_kernels")
        if not chosen.choose(name):
            pytest.skip(f"this processor has no {name}")
        monkeypatch.setattr(native, "_core", chosen)
    return name


def transformed(window: Bytes, symmetry: int) -> Bytes:
    """0-3 rotate counter-clockwise by 90 degrees each; 4-7 first flip left to right."""
    return np.rot90(window[:, ::-1] if symmetry >= 4 else window, symmetry % 4)


@functools.cache
def job(px: int, more_rows: int, more_columns: int) -> tuple[Bytes, Int64s, ImageSize, Bytes]:
    """Return memory, patches, size of images and the expected patches: all symmetries at all corners and some more.

    There are three images, of which the first begins with the memory and the last ends with it.
    """
    image = ImageSize(px + more_rows, px + more_columns)
    num_bytes = 3 * image.height * image.width
    memory = random_bytes(3 * num_bytes + 7, px)
    offsets = (0, num_bytes + 3, 2 * num_bytes + 7)
    tops, lefts = ({0, more // 2, more} for more in (more_rows, more_columns))
    places = itertools.product(sorted(tops), sorted(lefts), range(8))
    patches = np.array(
        [(0, offsets[n % 3], *place) for n, place in enumerate(places)],
        np.int64,
    )
    expected = []
    for _, offset, top, left, symmetry in patches.tolist():
        pixels = memory[offset : offset + num_bytes].reshape(*image, 3)
        expected.append(transformed(pixels[top : top + px, left : left + px], symmetry))
    return memory, patches, image, np.stack(expected)


@pytest.mark.parametrize("px", SIZES_PX)
def test_all_symmetries_sizes_and_positions_equal_numpy(kernels: str, px: int) -> None:
    for more_rows, more_columns in ((0, 0), (5, 0), (0, 7), (13, 22)):
        memory, patches, image, expected = job(px, more_rows, more_columns)
        for shift in (0, 1, 16, 32):
            block = np.full(expected.nbytes + 256, 0xA5, np.uint8)
            first = 64 - block.ctypes.data % 64 + shift
            to = block[first : first + expected.nbytes].reshape(expected.shape)
            native.copy_patches(map_of(memory), patches, image, to)
            assert np.array_equal(to, expected), (more_rows, more_columns, shift)
            assert (block[:first] == 0xA5).all() and (block[first + to.nbytes :] == 0xA5).all()


def test_patches_come_from_several_maps(kernels: str) -> None:
    memories = [random_bytes(3 * 9 * 9 + extra, extra) for extra in (0, 5, 11)]
    patches = np.array([(n % 3, (n % 3) * 2, n % 3, n % 2, n % 8) for n in range(40)], np.int64)
    to = np.empty((40, 7, 7, 3), np.uint8)
    native.copy_patches(map_of(*memories), patches, ImageSize(9, 9), to)
    for (number, offset, top, left, symmetry), patch in zip(patches.tolist(), to, strict=True):
        image = memories[number][offset : offset + 243].reshape(9, 9, 3)
        assert np.array_equal(patch, transformed(image[top : top + 7, left : left + 7], symmetry))


# ---- memory


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
MAP_FIXED = 0x10


class Fenced:
    """Pages between two that cannot be read or written: an access there is SIGBUS, which the core reports."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = -(-num_bytes // PAGE) * PAGE
        file = os.memfd_create("empty")
        try:
            self._all = LIBC.mmap(None, self.num_bytes + 2 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, 1, file, 0)
        finally:
            os.close(file)
        inner = self._all + PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED
        assert LIBC.mmap(inner, self.num_bytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) == inner
        self.bytes: Bytes = np.frombuffer((ctypes.c_uint8 * self.num_bytes).from_address(inner), np.uint8)

    def close(self) -> None:
        LIBC.munmap(self._all, self.num_bytes + 2 * PAGE)

    def part(self, num_bytes: int, is_first: bool) -> Bytes:
        """Return the first or the last bytes."""
        return self.bytes[:num_bytes] if is_first else self.bytes[self.num_bytes - num_bytes :]


@pytest.fixture
def fenced() -> Iterator[tuple[Fenced, Fenced]]:
    both = Fenced(3 * 64 * 80), Fenced(8 * 3 * 64 * 64)
    both[0].bytes[:] = random_bytes(both[0].num_bytes)
    yield both
    for each in both:
        each.close()


def test_nothing_outside_of_maps_and_destination_is_touched(kernels: str, fenced: tuple[Fenced, Fenced]) -> None:
    """Every patch size up to 64 px, at both sides of images that begin or end where the mapped memory does."""
    source, destination = fenced
    for px, is_first, more in itertools.product(range(1, 65), (True, False), (0, 3)):
        image = ImageSize(px, px + more)
        memory = source.part(3 * image.height * image.width, is_first)
        patches = np.array([(0, 0, 0, more * (not is_first), symmetry) for symmetry in range(8)], np.int64)
        to = destination.part(8 * 3 * px * px, is_first).reshape(8, px, px, 3)
        native.copy_patches(map_of(memory), patches, image, to)  # Unreadable when it reads or writes elsewhere
        left = more * (not is_first)
        window = memory.reshape(*image, 3)[:, left : left + px]
        assert all(np.array_equal(to[symmetry], transformed(window, symmetry)) for symmetry in range(8)), px


def test_fences_report_accesses(fenced: tuple[Fenced, Fenced]) -> None:
    """Else the test above could not fail."""
    source, destination = fenced
    patches, to = np.zeros((1, 5), np.int64), destination.part(48, True)
    before, end, to_end = -1, source.num_bytes - 47, destination.num_bytes - 47
    for first, to_first in ((before, 0), (end, 0), (0, before), (0, to_end)):
        maps, there = map_of(shifted(source.bytes, first)), shifted(to, to_first).reshape(1, 4, 4, 3)
        with pytest.raises(native.Unreadable):
            native.copy_patches(maps, patches, ImageSize(4, 4), there)
    expected = source.bytes[end:].tobytes() + b"?"
    with pytest.raises(native.Unreadable):
        native.have_bytes(map_of(shifted(source.bytes, end)), np.zeros((1, 2), np.int64), expected)


def shifted(array: Bytes, num_bytes: int) -> Bytes:
    """Return an array of the same size that begins `num_bytes` later, whatever is there."""
    memory = (ctypes.c_uint8 * array.nbytes).from_address(array.ctypes.data + num_bytes)
    return np.frombuffer(memory, np.uint8)


# ---- arguments

LOWEST, HIGHEST = -(2**63), 2**63 - 1
FIELDS = ("map", "offset", "top", "left", "symmetry")
IMAGE, PX, MAP_BYTES = ImageSize(9, 11), 4, 400  # an image has 297 bytes


def is_valid(maps: Int64s, patch: list[int], image: ImageSize, px: int) -> bool:
    number, offset, top, left, symmetry = patch
    return offset == native.NO_IMAGE or (
        0 <= number < len(maps)
        and 0 <= offset <= int(maps[number, 1]) - 3 * image.height * image.width
        and 0 <= top <= image.height - px
        and 0 <= left <= image.width - px
        and 0 <= symmetry < 8
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in FIELDS for value in (-2, LOWEST, LOWEST + 1, HIGHEST, HIGHEST - 1, -(2**32))),
        ("map", 2),
        ("offset", MAP_BYTES - 296),
        ("offset", HIGHEST - 296),  # its sum with the size of an image overflows
        ("top", 6),
        ("left", 8),
        ("symmetry", 8),
        ("symmetry", 2**32),
    ],
)
@pytest.mark.parametrize("row", [0, 2])
def test_a_patch_out_of_bounds_is_refused_before_any_is_copied(kernels: str, row: int, field: str, value: int) -> None:
    memory = random_bytes(2 * MAP_BYTES)
    patches = np.array([(0, 0, 0, 0, 0), (1, 103, 5, 7, 7), (1, 3, 2, 1, 3)], np.int64)
    patches[row, FIELDS.index(field)] = value
    to = np.full((3, PX, PX, 3), 0xA5, np.uint8)
    with pytest.raises(ValueError) as error:
        native.copy_patches(map_of(memory[:MAP_BYTES], memory[MAP_BYTES:]), patches, IMAGE, to)
    assert str(error.value) == f"patch {row} is out of bounds: {patches[row].tolist()}"
    assert (to == 0xA5).all()


@pytest.mark.parametrize(
    ("image", "px"),
    [
        *((ImageSize(*image), 4) for image in ((3, 9), (9, 3), (-1, 9), (LOWEST, HIGHEST), (65536, 9), (9, HIGHEST))),
        *((ImageSize(*image), 0) for image in ((0, 0), (9, 9))),
    ],
)
def test_patches_that_do_not_fit_into_images_are_refused(kernels: str, image: ImageSize, px: int) -> None:
    to = np.full((2, px, px, 3), 0xA5, np.uint8)
    with pytest.raises(ValueError) as error:
        native.copy_patches(map_of(random_bytes(400)), np.zeros((2, 5), np.int64), image, to)
    assert str(error.value) == f"no patches of {px} px in images of {image.width} x {image.height} px"
    assert (to == 0xA5).all()


def test_maps_smaller_than_an_image_are_refused(kernels: str) -> None:
    for size in (296, 0, -1, LOWEST):
        maps = map_of(random_bytes(400))
        maps[0, 1] = size
        with pytest.raises(ValueError, match=r"^patch 0 is out of bounds: \[0, 0, 0, 0, 0\]$"):
            native.copy_patches(maps, np.zeros((1, 5), np.int64), IMAGE, np.empty((1, 4, 4, 3), np.uint8))


def test_no_patches_are_no_error(kernels: str) -> None:
    native.copy_patches(np.zeros((0, 2), np.int64), np.zeros((0, 5), np.int64), IMAGE, np.empty((0, 4, 4, 3), np.uint8))


numbers = st.one_of(st.integers(-2, 12), st.integers(90, 110), st.integers(LOWEST, HIGHEST))


@settings(max_examples=300)
@given(
    st.lists(st.tuples(*[numbers] * 5), max_size=4),
    st.lists(st.integers(0, MAP_BYTES), max_size=3),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.integers(1, 12),
)
def test_arguments_are_valid_if_and_only_if_they_are_copied(
    rows: list[tuple[int, ...]], map_sizes: list[int], image: tuple[int, int], px: int
) -> None:
    memory, size = random_bytes(MAP_BYTES), ImageSize(*image)
    maps = np.array([(memory.ctypes.data, each) for each in map_sizes], np.int64).reshape(-1, 2)
    # Half of the rows are brought close to what is valid.
    patches = np.array(rows, np.int64).reshape(-1, 5)
    patches[::2] %= [max(1, len(maps)), 101, max(1, size.height - px + 1), max(1, size.width - px + 1), 8]
    to = np.full((len(patches), px, px, 3), 0xA5, np.uint8)
    fits = px <= min(size)
    invalid = [row for row, patch in enumerate(patches.tolist()) if not is_valid(maps, patch, size, px)]
    if fits and not invalid:
        native.copy_patches(maps, patches, size, to)
        for (_, offset, top, left, symmetry), copied in zip(patches.tolist(), to, strict=True):
            if offset == native.NO_IMAGE:
                assert (copied == 0xA5).all()
                continue
            pixels = memory[offset : offset + 3 * size.height * size.width].reshape(*size, 3)
            assert np.array_equal(copied, transformed(pixels[top : top + px, left : left + px], symmetry))
    else:
        expected = f"patch {invalid[0]} is out of bounds" if fits else f"no patches of {px} px"
        with pytest.raises(ValueError, match=expected):
            native.copy_patches(maps, patches, size, to)
        assert (to == 0xA5).all()


@settings(max_examples=200)
@given(
    st.lists(st.tuples(numbers, numbers), max_size=5), st.integers(0, 130), st.lists(st.integers(0, 120), max_size=3)
)
def test_bytes_are_compared_within_maps_only(positions: list[tuple[int, int]], size: int, map_sizes: list[int]) -> None:
    memory = np.zeros(400, np.uint8)
    memory[100] = 1
    maps = np.array([(memory.ctypes.data, each) for each in map_sizes], np.int64).reshape(-1, 2)
    found = native.have_bytes(maps, np.array(positions, np.int64).reshape(-1, 2), bytes(size))
    assert found.tolist() == [
        0 <= number < len(maps) and 0 <= offset <= map_sizes[number] - size and not memory[offset : offset + size].any()
        for number, offset in positions
    ]


@needs_compiler
def test_random_calls_pass_the_sanitizers(tmp_path: Path) -> None:
    """All kernels, with valid and invalid arguments, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    sanitizers = "-fsanitize=address,undefined"
    (tmp_path / "empty.c").write_text("int main(void) { return 0; }")
    if subprocess.run(
        ["gcc", sanitizers, tmp_path / "empty.c", "-o", tmp_path / "empty"], capture_output=True
    ).returncode:
        pytest.skip("gcc has no sanitizers (libasan and libubsan)")
    compile_core(tmp_path / "fuzz", "fuzz_patches.c", "-O1", "-g", sanitizers, "-fno-sanitize-recover=all")
    result = subprocess.run([tmp_path / "fuzz", "7", "6000"], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "comparisons, kernels: plain" in result.stdout and result.stdout.split()[0] != "0"


# ---- unreadable pages


@pytest.mark.parametrize("pages", [0, 1, 3])
def test_pages_that_cannot_be_read_are_reported(kernels: str, tmp_path: Path, pages: int) -> None:
    file = TruncatedFile(tmp_path, pages)
    for _ in range(3):  # the handler stays in place
        with pytest.raises(native.Unreadable, match=f"^the memory of row {pages} cannot be read$") as error:
            file.copy(range(4))
        assert error.value.row == pages
        for number, image in enumerate(file.copy(range(pages))):
            assert image.tobytes() == file.bytes[number * PAGE :][:768].tobytes()


def test_pages_that_cannot_be_compared_are_reported(tmp_path: Path) -> None:
    file = TruncatedFile(tmp_path, 2)
    positions = np.array([(0, page * PAGE) for page in range(4)], np.int64)
    expected = file.bytes[:50].tobytes()
    with pytest.raises(native.Unreadable) as error:
        native.have_bytes(file.maps, positions, expected)
    assert error.value.row == 2
    assert native.have_bytes(file.maps, positions[:2], expected).tolist() == [True, False]


def test_every_thread_has_its_own_guard(tmp_path: Path) -> None:
    """All read at once what can be read in part."""
    files = []
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        files.append(TruncatedFile(tmp_path / str(number), number % 3))
    start = threading.Barrier(len(files), timeout=TIMEOUT_S)

    def failed_rows(number: int) -> set[int]:
        failed = set()
        start.wait()
        for _ in range(200):
            with pytest.raises(native.Unreadable) as error:
                files[number].copy(range(4))
            failed.add(error.value.row)
            files[number].copy(range(number % 3))
        return failed

    with ThreadPoolExecutor(len(files)) as threads:
        assert list(threads.map(failed_rows, range(6))) == [{0}, {1}, {2}] * 2


SIGNALS_SCRIPT = """
    import faulthandler, os, resource, signal, sys
    from pathlib import Path
    sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
    from srshards import native
    from truncated_file import TruncatedFile
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    file = TruncatedFile(Path(sys.argv[2]), 1)

    def copy():
        try:
            file.copy(range(2))
        except native.Unreadable:
            print("unreadable", flush=True)

    def handle():
        signal.signal(signal.SIGBUS, lambda number, frame: print("handled", flush=True))

    def ignore():
        signal.signal(signal.SIGBUS, signal.SIG_IGN)

    def send():
        os.kill(os.getpid(), signal.SIGBUS)

    def crash():
        file.bytes[-1]

    for word in sys.argv[3].split():
        {"faulthandler": faulthandler.enable}.get(word, globals().get(word))()
    print("end")
"""
UNREADABLE, HANDLED, END = "unreadable", "handled", "end"


@pytest.mark.parametrize(
    ("steps", "out", "is_reported"),
    [
        ("crash", [], False),
        ("copy copy crash", [UNREADABLE] * 2, False),
        ("copy send", [UNREADABLE], False),
        ("faulthandler copy copy crash", [UNREADABLE] * 2, True),
        ("copy faulthandler copy crash", [UNREADABLE] * 2, True),
        ("copy faulthandler crash", [UNREADABLE], True),
        ("faulthandler copy send", [UNREADABLE], True),
        ("copy faulthandler copy send", [UNREADABLE] * 2, True),
        ("handle copy send copy send copy", [UNREADABLE, HANDLED] * 2 + [UNREADABLE, END], False),
        ("copy handle copy send copy send", [UNREADABLE] * 2 + [HANDLED, UNREADABLE, HANDLED, END], False),
        ("copy handle send copy send", [UNREADABLE, HANDLED] * 2 + [END], False),
        ("faulthandler copy handle copy send send", [UNREADABLE] * 2 + [HANDLED] * 2 + [END], False),
        ("ignore copy send copy send", [UNREADABLE] * 2 + [END], False),
    ],
)
def test_other_signals_have_their_usual_effect(steps: str, out: list[str], is_reported: bool, tmp_path: Path) -> None:
    """`crash` reads an unreadable page outside of the core, `send` is a signal from a process."""
    program = textwrap.dedent(SIGNALS_SCRIPT)
    command = [sys.executable, "-c", program, str(TESTS.parent), str(tmp_path), steps]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.stdout.split() == out, result.stderr
    assert result.returncode == (0 if out[-1:] == [END] else -signal.SIGBUS), result.stderr
    assert ("Fatal Python error: Bus error" in result.stderr) == is_reported
    assert is_reported or not result.stderr


# ---- the GIL


def test_other_threads_run_during_a_copy() -> None:
    """One of them sees a destination that is written in part: never, if copying kept the GIL."""
    image, patches = ImageSize(256, 256), np.zeros((400, 5), np.int64)
    memory, to = np.zeros(3 * 256 * 256, np.uint8), np.zeros((400, 256, 256, 3), np.uint8)
    first, last = to[0].reshape(-1), to[-1].reshape(-1)
    has_seen = threading.Event()

    def copy() -> None:
        for number in range(1, 100):
            memory[:] = number
            native.copy_patches(map_of(memory), patches, image, to)
            if has_seen.is_set():
                break

    thread = threading.Thread(target=copy)
    thread.start()
    while thread.is_alive():
        if first[0] > last[-1]:  # read in this order
            has_seen.set()
    assert has_seen.is_set()
