"""Containers that exist: their state, and what is done with them."""
