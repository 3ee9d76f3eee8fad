"""The commands, one file each: words to settings, an outcome to words."""
