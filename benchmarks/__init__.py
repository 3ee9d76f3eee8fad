"""Benchmarks against bare lower bounds and common alternatives. README.md describes the method."""
