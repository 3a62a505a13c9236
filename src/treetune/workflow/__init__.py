"""The straight paths: tune, evaluate, predict, pretrain, each readable as one function."""
