"""`python -m netemu`."""

from netemu.cli import main

main()
