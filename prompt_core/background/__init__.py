"""Own share: a word's probability against the user's words and a background of other names, to say "none of these"."""
