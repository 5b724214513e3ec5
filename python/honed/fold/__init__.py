"""Convolutions with what follows them as one call: batch norm, a sum, an activation.

``fold(model)`` reads the model's ``forward`` with ``torch.fx`` and exchanges it, on the instance, for a
function that runs the same steps with fewer calls whenever that gives the same values.
"""

from honed.fold.forward import Forward, Note, fold, notes, unfold

__all__ = ["Forward", "Note", "fold", "notes", "unfold"]
