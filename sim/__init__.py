"""Proof: the integer golden, the C-simulation of the generated C++, and their comparison tap by tap.

golden, build, bridge, compare ─► csim (the command)
timed/   the same kernels against a clock        rtl/     its anchor in Verilog
device/  the board's stand-in                    report/  the page people look at
"""
