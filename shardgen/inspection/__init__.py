"""Implementation of the commands that read shards: inspect, preview, rebuild, unpack and verify."""
