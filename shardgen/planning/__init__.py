"""Which photo goes into which shard."""
