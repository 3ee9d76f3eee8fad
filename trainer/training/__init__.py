"""Training: settings, plan, loop, validation and saving."""
