import pytest

pytest.register_assert_rewrite("canister.testing.contract", "canister.testing.replicated")
