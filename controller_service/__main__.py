"""``python -m controller_service`` is ``governor``."""

from controller_service.cli import main

main(prog_name="governor")
