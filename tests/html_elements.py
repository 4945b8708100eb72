"""A page as a browser reads it."""

from html.parser import HTMLParser


class Elements(HTMLParser):
    """Elements that a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def addresses(self) -> list[str]:
        """What the page would fetch or leads to."""
        return [attributes[key] or "" for _, attributes in self.found for key in ("src", "href") if key in attributes]
