"""Masks without arrays: COCO RLE, runs, enlarging, and what can be read off them."""
