"""Run folders: paths, resume, provenance, loggers, checkpoint files, and the one reader of them."""
