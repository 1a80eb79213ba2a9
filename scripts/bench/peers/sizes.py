"""The model that every toolkit trains: a small Transformer with one matrix for all embeddings."""

TOKENS = 4096
"""Target tokens of an update, about, padding not counted."""
WIDTH, HEADS, FEED_FORWARD, LAYERS = 256, 4, 1024, 3
"""LAYERS in the encoder and as many in the decoder."""
DROPOUT = 0.1
"""Of attention weights, feed-forward, residuals and embeddings, wherever a toolkit has it."""
SMOOTHING = 0.1
"""Of the labels."""
SEED = 1
