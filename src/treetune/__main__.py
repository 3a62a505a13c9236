"""``python -m treetune``."""

from treetune.cli.app import main

if __name__ == "__main__":
    main()
