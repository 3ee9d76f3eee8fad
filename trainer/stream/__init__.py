"""From the index of the shards to batches in memory."""
