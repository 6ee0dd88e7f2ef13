"""Published files: where each comes from, where it belongs, and how it is fetched and checked."""
