"""``python -m treetune``."""

from treetune.cli.app import start

if __name__ == "__main__":
    start()
