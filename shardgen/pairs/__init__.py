"""Existing HR/LR pairs: finding and reading them."""
