"""Making one shard."""
