"""File systems whose server is a program inside: fuse(4)."""
