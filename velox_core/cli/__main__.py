"""`python -m velox_core.cli`: how flows start the engine."""

from velox_core.cli.entry import main

main()
