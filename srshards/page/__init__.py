"""What HTML reports are put together from."""
