"""Models for other people's tools: `spvit export`, `make export`."""
