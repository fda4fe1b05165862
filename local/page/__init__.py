"""The page of a play: what happens, live, and what a person may do to it."""
