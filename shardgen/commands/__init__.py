"""The commands: each converts its arguments to a config and prints the result."""
