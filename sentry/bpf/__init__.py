"""Classic BPF: instructions, assembler, checks, interpreter. See README.md."""
