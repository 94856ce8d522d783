"""What `pytest benchmarks` measures; `results` has a page for each."""
