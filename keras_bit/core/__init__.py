"""What all of the package shares: arguments, files, the device, text."""
