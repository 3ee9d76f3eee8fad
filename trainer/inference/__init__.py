"""Inference: apply a network to images and photo files of any size."""
