"""Generate super-resolution training data: WebDataset shards of HR / LR / upsampled triplets, from photos."""
