"""Trains super-resolution networks from the shards that shardgen makes."""
