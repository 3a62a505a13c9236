"""What transformers calls the key-value cache of a model: ``cache`` from 5.24 on, ``past_key_values`` before.

Calls and outputs of any of its models use the name of the version that is installed; our own models take both.
"""

from __future__ import annotations

from dataclasses import fields

from transformers.modeling_outputs import BaseModelOutputWithPast

CACHE = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"
