"""Pixels: decoding, resampling, encoding, contact sheets."""
