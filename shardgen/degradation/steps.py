"""All steps, by their names in recipes."""

from shardgen.degradation.blurs import BLUR, LENS_BLUR, MOTION_BLUR, SINC
from shardgen.degradation.compression import BANDING, CHROMA_SUBSAMPLING, JPEG, WEBP
from shardgen.degradation.noises import CAMERA_NOISE, GAUSSIAN_NOISE, POISSON_NOISE, SALT_AND_PEPPER
from shardgen.degradation.sharpen import SHARPEN
from shardgen.degradation.sizes import RESIZE, TO_LR
from shardgen.degradation.step import Step

STEPS: dict[str, Step] = {
    "blur": BLUR,
    "sinc": SINC,
    "motion_blur": MOTION_BLUR,
    "lens_blur": LENS_BLUR,
    "resize": RESIZE,
    "to_lr": TO_LR,
    "gaussian_noise": GAUSSIAN_NOISE,
    "poisson_noise": POISSON_NOISE,
    "salt_and_pepper": SALT_AND_PEPPER,
    "camera_noise": CAMERA_NOISE,
    "jpeg": JPEG,
    "webp": WEBP,
    "chroma_subsampling": CHROMA_SUBSAMPLING,
    "banding": BANDING,
    "sharpen": SHARPEN,
}
