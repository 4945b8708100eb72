"""Pictures: what views show and what was predicted for them."""
