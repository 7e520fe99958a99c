"""Which tests `make test` keeps in one process, one after the other; all others run wherever there is room."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

# They share what not every process should make: brokers of their own, three of them or with logins, a checkout on the
# port of the pages, trained networks, and two cores do not carry more of that at once; or the name of a consumer group.
GROUPS = {
    "tests/docs/": "brokers",
    "tests/faults/": "brokers",
    "tests/security/": "brokers",
    "tests/test_cnn_minst.py": "training",
    "tests/test_models.py": "training",
    "tests/test_transports.py": "transports",
}


def group_of(nodeid: str) -> str | None:
    """The group of a test, by its file."""
    return next((group for path, group in GROUPS.items() if nodeid.startswith(path)), None)


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]  # it has no annotations
    """Hands out whole groups, and what is in none test by test.

    Not pytest-xdist's own `--dist=loadgroup`: since pytest 9.2 the names that it gives the tests have no effect.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid) or nodeid
