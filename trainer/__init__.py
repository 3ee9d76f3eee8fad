"""Train super-resolution networks from the shards that shardgen generates."""
