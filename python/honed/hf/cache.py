"""The key-value cache of the engine, in the shape that transformers' loops expect."""

from __future__ import annotations

import weakref

import torch
from transformers.cache_utils import DynamicCache

from honed._lib import _core


class HonedCache(DynamicCache):
    """A cache that the engine fills.

    While it is empty, torch may take it over: it is then the ``DynamicCache`` it derives from. Once the
    engine has filled it, torch cannot see its keys and values: a layer that asks for them gets an error.
    """

    def __init__(self, config, dtype: str, capacity: int = 0):
        super().__init__(config=config)
        self.config = config
        self.dtype = dtype
        self.capacity = capacity
        self.native = None
        self._owner = None  # weakly, the handle of the model that fills it

    def open(self, handle, batch: int, length: int):
        """The engine's cache for ``batch`` rows, made when first needed.

        Raises ValueError for a cache that another model filled: its keys mean nothing to this one.
        """
        ours = self._owner is not None and self._owner() is handle
        if self.native is None or (self.native.length == 0 and not (ours and self.native.batch == batch)):
            self.native = _core.Cache(handle.engine, batch, max(self.capacity, length), self.dtype)
            self._owner = weakref.ref(handle)
        elif not ours:
            raise ValueError(
                f"HonedCache: past_key_values holds {self.native.length} tokens of another model; "
                "start from an empty cache, or reset() this one"
            )
        return self.native

    @property
    def held_by_torch(self) -> bool:
        return self.native is None and super().get_seq_length() > 0

    @property
    def nbytes(self) -> int:
        return 0 if self.native is None else self.native.nbytes

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        if self.native is not None and self.native.length:
            raise RuntimeError(
                f"HonedCache: torch asked for the keys of layer {layer_idx}, but the engine filled this "
                f"cache with {self.native.length} tokens; start from an empty one, or unhone the model first"
            )
        self.native = None
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return super().get_seq_length(layer_idx) if self.native is None else self.native.length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        if self.native is None:
            return super().get_mask_sizes(query_length, layer_idx)
        return self.native.length + query_length, 0

    def reset(self):
        if self.native is None:
            super().reset()
        else:
            self.native.reset()

    def reorder_cache(self, beam_idx: torch.LongTensor):
        if self.native is None:
            super().reorder_cache(beam_idx)
        else:
            self.native.reorder(beam_idx.to("cpu", torch.int64))

    def batch_select_indices(self, indices: torch.Tensor):
        if self.native is None:
            super().batch_select_indices(indices)
        else:
            self.native.reorder(torch.arange(self.native.batch)[indices])

    def batch_repeat_interleave(self, repeats: int):
        if self.native is None:
            super().batch_repeat_interleave(repeats)
        else:
            self.native.reorder(torch.arange(self.native.batch).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last ``-tokens_to_remove`` tokens; a positive number is the length to keep."""
        if self.native is None:
            super().crop(tokens_to_remove)
        elif tokens_to_remove > 0:
            self.native.crop(min(tokens_to_remove, self.native.length))
        else:
            self.native.crop(max(0, self.native.length + tokens_to_remove))

    @property
    def is_croppable(self) -> bool:
        return True if self.native is not None else super().is_croppable

    @property
    def is_initialized(self) -> bool:
        return True if self.native is not None else super().is_initialized

    @property
    def batch_size(self) -> int:
        return super().batch_size if self.native is None else self.native.batch

    def __deepcopy__(self, memo):
        if self.native is not None and self.native.length:
            raise RuntimeError("HonedCache: a filled cache cannot be copied; read the prompt again")
        return HonedCache(self.config, self.dtype, self.capacity)

    def __iter__(self):
        if self.native is not None and self.native.length:
            raise RuntimeError(
                "HonedCache: its keys and values live in the engine and cannot be read from Python"
            )
        return super().__iter__()
