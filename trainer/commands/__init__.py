"""The commands, one module each: parse options, call the package, print results."""
