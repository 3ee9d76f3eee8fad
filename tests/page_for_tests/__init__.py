"""A page with one of everything, for tests."""
