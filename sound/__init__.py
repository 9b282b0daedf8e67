"""Recordings in and out, and what is done to sound: phase, loudness, recording conditions."""
