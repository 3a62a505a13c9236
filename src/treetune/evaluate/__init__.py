"""Answers and examples in, scores with intervals out: `score` of one system, `evaluation` of several."""
