"""Training: data and augmentation, one loop for every phase, its state on disk; the backbone, the selectors under masks
with a controller of their cost, and the layer-to-phase schedule. `spvit train` is the command.
"""
