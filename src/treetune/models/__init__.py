"""Everything that turns examples into tensors and a loss; the lowest folder that imports torch and transformers."""

from treetune.core.deferred import import_when_called

# taken by losses for pictures, which come with every model of transformers: 40 MB and half a second of every command
import_when_called("transformers.loss.loss_utils", "scipy.optimize")
