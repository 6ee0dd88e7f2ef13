"""Results as pages that are looked through in a browser, what is in doubt first."""
