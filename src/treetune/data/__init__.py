"""Rows in: read a file, folder or hub data set, split it, look at it. Knows nothing of tasks or models."""

from treetune.data.check import DataReport, Leak, Lengths, SplitReport, TextReport, inspect
from treetune.data.read import ReadResult, read_rows, stop_if_too_many
from treetune.data.refusals import Refusal, write_quarantine
from treetune.data.sample import sample_path
from treetune.data.split import Overlap, duplicates, group_by, leakage, split_off

__all__ = [
    "DataReport",
    "Leak",
    "Lengths",
    "Overlap",
    "ReadResult",
    "Refusal",
    "SplitReport",
    "TextReport",
    "duplicates",
    "group_by",
    "inspect",
    "leakage",
    "read_rows",
    "sample_path",
    "split_off",
    "stop_if_too_many",
    "write_quarantine",
]
