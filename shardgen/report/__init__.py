"""`shardgen report`: what a folder of shards holds, as a page to look at before it is trained on."""
