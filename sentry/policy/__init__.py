"""Who decides on system calls: a module of the operator's. README.md says where to start."""
