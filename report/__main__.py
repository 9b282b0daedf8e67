"""List the training runs in a folder: python -m report runs."""

from report.run_page import main

if __name__ == "__main__":
    raise SystemExit(main())
