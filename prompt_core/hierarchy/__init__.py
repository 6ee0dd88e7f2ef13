"""Classes above and below each other: what is no negative, how wrong an answer is, words pooled from their kinds."""
