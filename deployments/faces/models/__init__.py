"""ONNX models: their files, their sessions, batches and CUDA graphs."""
