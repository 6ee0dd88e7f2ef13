"""Time and memory, each measured in a fresh process."""
