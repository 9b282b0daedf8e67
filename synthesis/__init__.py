"""From scores and single notes to aligned audio."""
