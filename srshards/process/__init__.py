"""Process management: resources, start-up, child processes and interrupts."""
