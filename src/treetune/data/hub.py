"""Rows of a data set on the Hugging Face hub, through the datasets library (an extra)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treetune.core.errors import DataError, UsageError
from treetune.data.formats import MAX_DEPTH, Item
from treetune.data.labels import name_labels
from treetune.data.refusals import fault_in, refuse

PREFIX = "hub:"


def parse_hub(name: str, split: str) -> Iterator[Item]:
    """(1-based record number, record or refusal) of ``hub:NAME`` or ``hub:NAME:CONFIGURATION``.

    Raises:
        UsageError: E1121 the datasets library is not installed.
        DataError: E1122 the data set, its configuration or its split cannot be loaded.
    """
    for number, record in enumerate(_load(name, split), start=1):
        fault = fault_in(record, MAX_DEPTH)
        yield number, refuse(fault[1], name, number, record, fault[0]) if fault else record


def _load(name: str, split: str) -> Iterator[dict[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise UsageError("E1121", "data sets of the hub need the datasets library", where=name,
                         do="pip install 'treetune[hub]'") from error
    dataset_name, _, configuration = name.removeprefix(PREFIX).partition(":")
    try:
        dataset = datasets.load_dataset(dataset_name, configuration or None, split=split)
        features = getattr(dataset, "features", None) or {}
        labels = {column: feature.names for column, feature in features.items() if hasattr(feature, "names")}
        for record in dataset:
            yield name_labels(dict(record), labels)
    except (OSError, ValueError) as error:
        raise DataError(
            "E1122", "the data set cannot be loaded from the hub", where=f"{name}, split {split}",
            found=" ".join(str(error).split())[:300],
            do="check the name, the configuration (hub:NAME:CONFIGURATION), the split and the network",
        ) from error
