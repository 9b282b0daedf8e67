"""What every script shares: flags and one-line errors, files, devices, worker processes."""
