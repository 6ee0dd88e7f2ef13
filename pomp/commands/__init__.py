"""What each command of ``pomp`` does; tools/ and datasets/ have thin twins of some."""
