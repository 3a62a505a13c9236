"""The package's version: for records, pages and ``--version``; pyproject.toml has the same."""

__version__ = "0.1.0"
