"""Terminal input and output shared by both command lines."""
