"""Tuned models in the forms that other tools read, one file a form: how it is written, and how it is opened again."""
