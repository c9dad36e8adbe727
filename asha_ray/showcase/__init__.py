"""Procedural images and music for a demonstration that needs no artist's data."""
