"""What a run costs, before it runs: arithmetic on a model's configuration and counts of tokens. No torch, no text."""
