"""Build one shard."""
