"""What the normalisations over the last dimensions share."""

from math import prod


def last_dims(name: str, input, normalized_shape) -> tuple[int, int]:
    """How many dimensions ``normalized_shape`` has, and its elements; ``input`` ends in several."""
    if isinstance(normalized_shape, int):
        return 1, normalized_shape
    dims = len(normalized_shape)
    if dims == 1:
        return 1, normalized_shape[0]
    if not dims or tuple(input.shape[-dims:]) != tuple(normalized_shape):
        raise ValueError(
            f"{name}: input has shape {list(input.shape)}, expected its last dimensions to be "
            f"{list(normalized_shape)}"
        )
    return dims, prod(normalized_shape)


def epsilon(input) -> float:
    """The machine epsilon of the type in which sums over ``input`` are made."""
    return 2.0**-52 if input.itemsize == 8 else 2.0**-23
