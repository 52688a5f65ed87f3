"""A sandbox as records and pages, written and read. See README.md."""
