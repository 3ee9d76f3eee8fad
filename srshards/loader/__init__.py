"""Batches of patches from worker processes, through shared memory."""
