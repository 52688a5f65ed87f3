"""Is this machine fit for sandboxes? See README.md."""
