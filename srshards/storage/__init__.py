"""Files that are whole, and object stores."""
