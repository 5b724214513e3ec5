"""geglu in torch: shapes, gradients."""

from honed.ops._torch._pointwise import gated
from honed.ops._torch.gelu import plain

Geglu = gated("geglu", plain)
