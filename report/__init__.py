"""Pictures and HTML pages: listening page, run page, list of runs."""
