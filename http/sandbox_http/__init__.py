"""The border: HTTP and WebSocket requests become actor messages, pages of the journal become streams."""
