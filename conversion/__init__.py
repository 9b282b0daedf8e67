"""Convert recordings with trained generators; find, load and save these."""
