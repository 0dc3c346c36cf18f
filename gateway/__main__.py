"""`python -m gateway`: serve. The other commands work here too."""

import sys

from gateway.cli import main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    is_command = bool(arguments) and (not arguments[0].startswith("-") or arguments[0] == "--version")
    sys.exit(main(arguments if is_command else ["serve", *arguments]))
