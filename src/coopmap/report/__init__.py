"""How results are shown and written: tables, number formats, pages, colors, atomic files."""
