"""What is measured once for a question, each a command of its own; `results` has the answers."""
