"""The training loop and its parts: order of rows, optimizers, schedule, checkpoints, signals."""
