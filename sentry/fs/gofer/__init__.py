"""The Gofer file system: files of the host, over 9P and donated descriptors."""
