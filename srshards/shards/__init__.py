"""Reading folders of shards: local, in an object store, or cached."""
