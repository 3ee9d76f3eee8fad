"""Shards in other training frameworks: one package for each, which docs/how-to/other-trainers.md describes.

The frameworks are imported, never changed on disk, and none of them is a requirement of srshards.
"""
