"""Models for other people's tools: `python -m quant.exports.command`, `make export`."""
