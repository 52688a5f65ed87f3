"""Container engines: where each is told of its runtimes. See README.md."""
