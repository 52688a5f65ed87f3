"""Sandboxes for frameworks of others: README.md. Each module needs its framework."""
