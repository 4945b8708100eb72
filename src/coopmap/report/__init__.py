"""How results are shown and written: tables, number formats, pages, colors, files that are never half-written."""
