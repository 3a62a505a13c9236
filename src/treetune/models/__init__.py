"""Everything that turns examples into tensors and a loss; the lowest folder that imports torch and transformers."""

from treetune.core.deferred import import_when_used
from treetune.models.compiler import import_compiler_when_used

# Imported with every model of transformers, for losses of pictures, for what is compiled and for tensors in parts:
# 100 MB and more than a second of every command.
import_compiler_when_used()
import_when_used("scipy.optimize", ["transformers.loss"])
import_when_used("torch._dynamo._trace_wrapped_higher_order_op", ["transformers.masking_utils"])
import_when_used("torch.fx.experimental.symbolic_shapes", ["torch.distributed.tensor"],
                 errors=["GuardOnDataDependentSymNode"])
