"""Address spaces: what is mapped where, with Linux's semantics. See README.md."""
