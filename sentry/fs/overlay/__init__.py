"""A writable layer in memory over a read-only file system. See README.md."""
