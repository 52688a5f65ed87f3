"""Programs: ELF files and scripts become address spaces. See README.md."""
