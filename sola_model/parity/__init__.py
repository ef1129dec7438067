"""The official predictor beside our extraction."""
