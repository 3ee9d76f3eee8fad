"""The commands, one file each: options to settings, results to text."""
