"""The top of the house: the flow as Python functions, and as the command `spvit`.

from spvit_fpga import build, load_model, quantize

net = load_model("deit_s", checkpoint="deit_small_patch16_224.pth")
accelerator = build(quantize(net, images="photos"), target="zcu102")
accelerator.csim("photos").mismatches
accelerator.estimate().latency_ms
accelerator.report()
"""
