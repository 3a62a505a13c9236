"""A missing extra is named before anything is loaded."""

import pytest

from treetune.core.errors import UsageError
from treetune.models.export.packages import require


def test_a_missing_package_is_named_with_the_extra() -> None:
    require("gguf", ("json",))
    with pytest.raises(UsageError, match="E2801") as caught:
        require("gguf", ("json", "no_such_package_here"))
    assert "no no_such_package_here" in str(caught.value)
    assert "pip install 'treetune[export]'" in str(caught.value)
