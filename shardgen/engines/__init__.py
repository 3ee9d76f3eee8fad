"""Where shards are made: in this process, in a pool of processes, or on a Ray cluster."""
