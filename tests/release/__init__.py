"""Checks before a release: `python -m tests.release`, which `make release-check` runs."""
