"""``python -m coopmap COMMAND ...``: the same as ``coopmap COMMAND ...``."""

from coopmap.cli.main import main

if __name__ == "__main__":
    main()
