"""Batches from worker processes, over shared memory."""
