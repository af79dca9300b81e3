"""From a float SPViT to 16-bit fixed point.

Enters: a float `SPViT` and images. Leaves: a `QuantizedNetwork` (int16 tensors, their formats, the selectors'
thresholds) as one pair of files that is readable without torch.

Without torch: `formats` (the rounding rule), `functions` (tables of the non-linear functions), `network`.
With torch: `model` (the Brevitas model), `calibrate`, `quantize` (the command).
"""
