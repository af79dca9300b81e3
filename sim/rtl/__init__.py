"""The timed C-simulation's anchor: hand-written Verilog that must take the same cycles."""
