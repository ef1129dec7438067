"""The track selection module (paper, 3.5): network, losses, weights, inference, merging."""
