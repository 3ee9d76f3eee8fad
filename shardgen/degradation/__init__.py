"""Blind degradation: a recipe of steps, drawn for every LR image and written down, so that it can be made again."""
