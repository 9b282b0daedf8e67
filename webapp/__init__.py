"""The browser page of app.py: access, the files of each tab, worker processes, HTML."""
