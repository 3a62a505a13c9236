"""Token trees: several rows as one forest, shared prefixes once. Pure functions on numpy arrays."""

from treetune.trees.build import build_tree
from treetune.trees.mask import allowed_pairs
from treetune.trees.pack import pack

__all__ = ["allowed_pairs", "build_tree", "pack"]
