"""Shows a folder of reports in a browser, on this machine alone.

Python's own ``http.server`` is enough for one reader on the loopback interface, is kept with Python, and needs no
dependency. Its handler of folders follows links out of them and lists everything, so the handler here is our own.
"""
