"""Sandboxes as objects, for Python programs: see README.md. What is public is in `runsc` itself."""
