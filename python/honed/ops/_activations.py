"""Activations that products and convolutions finish with."""

ACTIVATIONS = ("none", "relu", "relu6", "gelu", "gelu_tanh", "silu")  # as ops/linear.h numbers them
