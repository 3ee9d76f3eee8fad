"""Where shards are made: in this process, in a pool of processes, and later on a cluster."""
