"""Why a model answers as it does: input words, layers, attention, training rows; and whether that is true."""
