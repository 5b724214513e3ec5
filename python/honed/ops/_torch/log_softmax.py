"""log_softmax in torch: shapes, gradients."""

from honed.ops._torch._softmax import of_result

LogSoftmax = of_result("log_softmax", lambda grad, y, dim: grad - y.exp() * grad.sum(dim, keepdim=True))
