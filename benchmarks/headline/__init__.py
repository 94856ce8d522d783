"""The headline table: what this package gains on the machine at hand, as a page with a picture."""
