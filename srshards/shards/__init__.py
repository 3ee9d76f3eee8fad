"""Folders of shards, on this machine, in a store or in a cache."""
