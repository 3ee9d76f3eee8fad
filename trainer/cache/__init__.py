"""Shards of a store on this machine: each downloaded once, checked, and removed when others need the room."""
