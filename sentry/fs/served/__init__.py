"""Files that the sandbox's owner serves."""
