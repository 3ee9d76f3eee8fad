"""The compiled module; srshards/native/__init__.py describes its functions."""

def copy_patches(
    maps: int, num_maps: int, patches: int, count: int, height: int, width: int, patch: int, to: int, to_size: int, /
) -> tuple[int, int]: ...
def compare(
    maps: int, num_maps: int, positions: int, count: int, expected: bytes, equal: int, /
) -> tuple[int, int]: ...
