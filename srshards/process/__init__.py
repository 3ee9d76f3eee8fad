"""What a process may use, how it starts and how it is interrupted."""
