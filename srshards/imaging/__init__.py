"""Images: decoding, resampling, encoding, contact sheets."""
