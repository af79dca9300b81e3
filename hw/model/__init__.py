"""What a design will cost, before any tool has seen it: every figure an estimate.

latency (how long operators take) ─► cycles (an image, in closed form) ─► budget, means
memory, lanes/ (mapped by yosys: measure) ─► resources
estimate, explore (the commands)
"""
