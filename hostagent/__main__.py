"""`python -m hostagent` is `hostagent`."""

from hostagent.cli import main

main()
