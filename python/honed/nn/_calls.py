"""What calling a module does: its own class's forward alone, or more."""

from __future__ import annotations

from torch.nn.modules.module import _has_any_global_hook


def is_plain(module, *classes) -> bool:
    """True where calling the module is calling ``forward`` of one of these classes and nothing else.

    Only then may a layer around it fuse that forward with what comes before or after.
    """
    return (
        type(module) in classes
        and not (
            module._forward_hooks
            or module._forward_pre_hooks
            or module._backward_hooks
            or module._backward_pre_hooks
            or "forward" in module.__dict__
        )
        and module._compiled_call_impl is None
        and not _has_any_global_hook()
    )
