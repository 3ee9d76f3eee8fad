"""The samples and crops of each batch, as pure functions of seed and step."""
