"""The documents are executed: what they show is run, and what they list is held against the code."""
