"""A run as one page: README.md."""
