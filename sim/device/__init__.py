"""The emulated device: what PYNQ finds where there is no board."""
