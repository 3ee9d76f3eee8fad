"""Makes super-resolution training data: photos in, WebDataset shards of HR / LR / upsampled triplets out."""
