"""A private container engine for `sam local`, where there is none."""
