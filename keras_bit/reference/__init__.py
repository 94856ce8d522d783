"""The reference of the public names, made of their docstrings."""
