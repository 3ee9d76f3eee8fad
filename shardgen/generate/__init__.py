"""Generate shards: compare the plan with the output folder, build what is missing, write the manifests."""
