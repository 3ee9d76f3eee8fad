"""The commands. Each only translates: words to a config, an outcome to words."""
