"""What every layer speaks: records, errors, settings, files, seeds, language. Standard library and numpy only."""
