"""Formulas: strings or arrays in, per-row statistics out, and the score of their sum.

`statistics` holds what they share, `interval` the bootstrap; the rest is one file a kind of answer.
"""
