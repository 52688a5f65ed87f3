"""ptrace(2): one task watches and changes another. README.md says where to start."""
