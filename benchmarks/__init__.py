"""What the generator costs, measured against the bare work and against what people use. README.md says how."""
