"""From a model and examples to predictions: labels by scoring, text by generation, and the language model itself."""
