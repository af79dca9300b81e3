"""SPViT (arXiv 2112.13890): soft token pruning for vision transformers, in PyTorch.

Nothing is imported here: `config`, `errors` and `cost` also serve machines that have no torch.
"""
