"""The authors' published figures, and commands that measure them with this package."""
