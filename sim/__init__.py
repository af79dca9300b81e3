"""Proof: the integer golden, the C-simulation of the generated C++, and their comparison tap by tap."""
