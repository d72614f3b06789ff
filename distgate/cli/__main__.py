"""``python -m distgate.cli``."""

from distgate.cli.main import main

main()
