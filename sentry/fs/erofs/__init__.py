"""Read-only images in a file: EROFS."""
