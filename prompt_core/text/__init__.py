"""The prompted text encoder on open_clip's text towers: the shared prefix once, each class for a few tokens."""
