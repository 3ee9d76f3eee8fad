"""The losses as functions of tensors."""
