"""A page with every shared part, for tests."""
