"""Planning: list the photos and assign each one to a shard."""
