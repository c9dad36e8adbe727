"""Frames to video: colour conversion, encoding, exact stitching, inspection. Local files only."""
