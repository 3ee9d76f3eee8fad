"""Blind degradation: recipes whose steps are drawn per LR image and recorded, so that LR can be recomputed."""
