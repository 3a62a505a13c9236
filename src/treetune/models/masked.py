"""An encoder's own language: which word stands behind a mask (AutoModelForMaskedLM)."""

from __future__ import annotations

AUTO_CLASS = "AutoModelForMaskedLM"
PEFT_TASK = "FEATURE_EXTRACTION"
BRANCHES = False
MAX_LENGTH = 0
