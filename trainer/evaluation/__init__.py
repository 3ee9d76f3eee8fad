"""Metrics, and the evaluation of networks."""
