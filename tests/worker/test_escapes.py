"""Every way out of the sandbox that we know is tried from within: with all layers, and without each of them."""

from pathlib import Path

import pytest

from tests.worker.escapes import (
    ONLY_BY_LANDLOCK,
    ONLY_BY_NAMESPACES,
    ONLY_BY_SYSTEM_CALLS,
    WAYS,
    WITHOUT_LANDLOCK,
    WITHOUT_NAMESPACES,
    WITHOUT_SYSTEM_CALLS,
    Attempted,
    attempt,
    namespaces_can_be_refused,
)
from worker.sandbox import confinement, landlock


def tried(folder: Path, prefix: tuple[str, ...] = ()) -> Attempted:
    if not confinement()["system_calls"] or landlock.version() < landlock.SCOPE_SINCE:
        pytest.skip("this machine lacks seccomp, or a Landlock that confines signals")
    return attempt(folder, prefix)


def led_out(attempted: Attempted) -> set[str]:
    return {name for name, outcome in attempted.outcomes.items() if outcome == "led out"}


def test_no_way_leads_out(tmp_path: Path) -> None:
    if not confinement()["namespaces"]:
        pytest.skip("this machine lets no namespaces be made")
    attempted = tried(tmp_path)
    assert led_out(attempted) == set()
    assert attempted.damage == []
    # What is barred is barred, and not misspelt.
    assert not [name for name, outcome in attempted.outcomes.items() if outcome.startswith(("NameError", "TypeError"))]
    assert len(attempted.outcomes) > len(WAYS) / 2


def test_no_way_leads_out_where_namespaces_are_refused(tmp_path: Path) -> None:
    """As in a container with the usual seccomp profile: Landlock, seccomp and limits are left."""
    if not namespaces_can_be_refused():
        pytest.skip("no user namespace can be made here")
    attempted = tried(tmp_path, WITHOUT_NAMESPACES)
    assert led_out(attempted) - ONLY_BY_NAMESPACES == set()
    assert attempted.damage == []


@pytest.mark.parametrize(
    ("prefix", "unbarred", "shows"),
    [
        pytest.param(WITHOUT_LANDLOCK, ONLY_BY_LANDLOCK, "files: list-root", id="landlock"),
        pytest.param(WITHOUT_SYSTEM_CALLS, ONLY_BY_SYSTEM_CALLS, "network: netlink", id="seccomp"),
    ],
)
def test_nothing_outside_is_reached_without_one_layer(
    prefix: tuple[str, ...], unbarred: frozenset[str], shows: str, tmp_path: Path
) -> None:
    """As on a kernel that lacks it. `shows`: what leads out wherever the layer is off."""
    if not confinement()["private_root"]:  # a file of this machine would be changed for real
        pytest.skip("this machine lets no root folder be made, which has to stop what the layer does not")
    attempted = tried(tmp_path, prefix)
    assert led_out(attempted) - unbarred == set()
    assert shows in led_out(attempted)
    assert attempted.damage == []
