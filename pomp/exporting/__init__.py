"""What other programs read: class matrices, and models whose words are an input."""
