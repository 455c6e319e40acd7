"""Webhooks, made and deleted on the database."""

import httpx

from app.embedded import Stack
from tests.app.cli.conftest import LatheCommand
from tests.conftest import bearer

URL = "https://93.184.215.14/hook"  # needs no name server


def test_a_webhook_made_on_the_host_is_there_for_the_api_until_it_is_deleted(
    bare_lathe: LatheCommand, stack: Stack
) -> None:
    data = ("--data", stack.key_file.parent)
    made = bare_lathe("webhooks", "create", URL, *data, "--json").json
    assert made["secret"].startswith("whsec_")
    headers = bearer(stack.key)
    assert httpx.get(f"{stack.url}/v1/webhooks/{made['id']}", headers=headers).json()["url"] == URL
    listed = bare_lathe("webhooks", "list", *data)
    assert made["id"] in listed.stdout
    assert made["secret"] not in listed.stdout
    assert bare_lathe("webhooks", "deliveries", made["id"], *data, "--json").json == []
    assert bare_lathe("webhooks", "delete", made["id"], *data).code == 0
    assert bare_lathe("webhooks", "delete", made["id"], *data).code == 4
    assert bare_lathe("webhooks", "deliveries", made["id"], *data).code == 4
    assert httpx.get(f"{stack.url}/v1/webhooks/{made['id']}", headers=headers).status_code == 404


def test_an_inner_address_and_a_workspace_that_is_not_there_are_refused(bare_lathe: LatheCommand, stack: Stack) -> None:
    data = ("--data", stack.key_file.parent)
    refused = bare_lathe("webhooks", "create", "https://127.0.0.1/hook", *data)
    assert (refused.code, refused.stdout) == (4, "")
    assert "does not resolve to public addresses alone" in refused.stderr
    nowhere = bare_lathe("webhooks", "create", URL, "--workspace", "nowhere", *data)
    assert nowhere.code == 4
    assert "nowhere" in nowhere.stderr
