"""Checks of an answer's content that need no label: one file a kind; `contract` says what each must offer."""
