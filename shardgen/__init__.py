"""Makes super-resolution training data: photos in, WebDataset shards of HR / LR / upsampled triplets out."""

__version__ = "0.1.0"
