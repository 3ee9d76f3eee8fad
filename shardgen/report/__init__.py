"""The report: an HTML page about a folder of shards, to read before training on them."""
