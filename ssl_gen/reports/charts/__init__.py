"""Curves, maps, grids of images, and the looks of a page."""
