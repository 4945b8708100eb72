"""Run folders: paths, resume, provenance, loggers, checkpoint files, and their reader."""
