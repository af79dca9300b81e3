"""The timed C-simulation: the kernels' own C++ against a clock, its ports, FIFOs and memories watched.

The headers stand in the places of the kernels' streams, loops and memories; `timing` is their Python side.
"""
