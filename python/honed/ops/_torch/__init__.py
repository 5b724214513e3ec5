"""The torch side of the ops, one file an op: shapes for tracing (``torch.library``) and gradients."""
