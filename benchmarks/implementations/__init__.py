"""The networks and input pipelines that are compared: this package's and those of its peers."""
