"""Which samples and which crops make a batch: pure functions of seed and step."""
