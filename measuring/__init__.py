"""Measure converted pieces: metrics, judges, tables, the evaluation page."""
