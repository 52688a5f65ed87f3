"""File systems whose files are made when they are read: what /proc and /sys are built on.

`table.TableFs` is the file system, `nodes` its inodes (directories made of tables, text files,
links, magic links), `files.TextFile` an open text file; `cpu` and `memory` are what both tell of
the machine.
"""
