"""`python -m runsc`."""

from runsc.cli import main

main()
