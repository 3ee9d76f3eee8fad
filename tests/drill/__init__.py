"""The fault drill: everything that can go wrong on a machine, done on purpose, counted, and compared."""
