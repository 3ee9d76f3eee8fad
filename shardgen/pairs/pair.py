"""A pair of images that exists already: an HR image with an LR image at each scale."""

from dataclasses import dataclass

from shardgen.planning.sources import Photo


@dataclass(frozen=True, slots=True)
class Pair:
    """An HR image and the LR images made from it.

    `path`, `size` (bytes) and `mtime_ns` are those of the HR image, as in `Photo`; the path is relative to the HR root
    and identifies the pair. `lrs` and `ups` hold (scale, image) in the order of the scales. Their paths are relative to
    the root of their scale. `ups` are the upsampled LR images; it is empty if there are none.
    """

    path: str
    size: int
    mtime_ns: int
    lrs: tuple[tuple[int, Photo], ...]
    ups: tuple[tuple[int, Photo], ...] = ()

    @property
    def class_name(self) -> str:
        """The folder of the HR image relative to the HR root; `.` for the root itself."""
        return self.hr.class_name

    def counterparts(self, scale: int) -> tuple[Photo, ...]:
        """Return the LR image at a scale, and the upsampled one if there are any."""
        return tuple(image for of_scale, image in (*self.lrs, *self.ups) if of_scale == scale)

    @property
    def hr(self) -> Photo:
        """The HR image."""
        return Photo(self.path, self.size, self.mtime_ns)
