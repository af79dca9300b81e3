"""The float model for other runtimes: as ONNX, with tokens really removed or masked."""
