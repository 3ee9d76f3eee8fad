"""The compiled module; srshards/native/__init__.py describes its functions."""

def copy_patches(
    maps: int, num_maps: int, patches: int, count: int, height: int, width: int, patch: int, to: int, to_size: int, /
) -> tuple[int, int]: ...
def decode_patches(
    maps: int,
    num_maps: int,
    patches: int,
    lengths: int,
    count: int,
    height: int,
    width: int,
    patch: int,
    to: int,
    to_size: int,
    scratch: int,
    is_intact: int,
    /,
) -> tuple[int, int]: ...
def compare(
    maps: int, num_maps: int, positions: int, count: int, expected: bytes, equal: int, /
) -> tuple[int, int]: ...
def encode_tlc(image: int, height: int, width: int, to: int, to_size: int) -> int: ...
def max_tlc_size(height: int, width: int) -> int: ...
def decode_tlc(content: int, size: int, top: int, left: int, height: int, width: int, to: int) -> int: ...
