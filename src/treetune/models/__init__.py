"""Everything that turns examples into tensors and a loss; the lowest folder that imports torch and transformers."""
