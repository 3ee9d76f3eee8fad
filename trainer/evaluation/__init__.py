"""Image quality metrics and the evaluation of networks."""
