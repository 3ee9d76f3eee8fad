"""Takes the place of albumentations, which the published code of bsrgan-light imports for its demonstration only."""
