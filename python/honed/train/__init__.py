"""What training needs beside modules: the fused AdamW."""

from honed.train.adamw import AdamW

__all__ = ["AdamW"]
