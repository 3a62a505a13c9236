"""Names of numbered labels, where the file itself says them (ClassLabel of the datasets library)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Names = Mapping[str, Sequence[str]]


def names_in_metadata(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Column -> label names, from the ``huggingface`` entry of a parquet schema; {} where there is none."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def name_labels(record: dict[str, Any], names: Names) -> dict[str, Any]:
    """The record with numbers of labelled columns replaced by their names; -1 (unlabelled) becomes None."""
    for column, known in names.items():
        value = record.get(column)
        if isinstance(value, int) and not isinstance(value, bool) and -1 <= value < len(known):
            record[column] = known[value] if value >= 0 else None
    return record
