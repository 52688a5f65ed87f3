"""From a bundle to the processes of a sandbox."""
