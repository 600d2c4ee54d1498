from __future__ import annotations

import errno

import pytest

from sandbox_actors.installer.trouble import trouble_of_os, trouble_of_tool, without_users


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("npm error code ENOTFOUND", "network"),
        ("npm error code UNABLE_TO_GET_ISSUER_CERT_LOCALLY", "network"),
        ("npm error code ENOSPC", "disk_full"),
        ("npm error code E404", "not_found"),
        ("npm error code ETARGET\nnpm error notarget No matching version found for fox@7", "not_found"),
        ("npm error code EACCES", "failed"),
        ("error: Request failed after 2 retries in 3.0s", "network"),
        ("  cause: dns error", "network"),
        ("Because there is no version of fox==7 and you require fox==7", "not_found"),
        ("Because fox was not found in the package registry", "not_found"),
        ("error: failed to write: No space left on device (os error 28)", "disk_full"),
        (
            "WARNING: Failed to establish a new connection\nERROR: No matching distribution",
            "network",
        ),
        ("ERROR: No matching distribution found for fox==7", "not_found"),
        ("error: Failed to build", "failed"),
        ("", "failed"),
    ],
)
def test_what_a_tool_says_is_understood(said: str, reason: str) -> None:
    trouble = trouble_of_tool("npm", "fox@7", said.splitlines())
    assert trouble.reason == reason
    assert str(trouble).startswith("npm could not install fox@7: ")
    assert trouble.stderr == tuple(said.splitlines())


def test_what_the_system_refuses_is_understood() -> None:
    assert trouble_of_os(OSError(errno.ENOSPC, "No space left on device")).reason == "disk_full"
    assert trouble_of_os(OSError(errno.EDQUOT, "Disk quota exceeded")).reason == "disk_full"
    denied = trouble_of_os(PermissionError(errno.EACCES, "Permission denied", "/data"))
    assert (denied.reason, str(denied)) == ("failed", "Permission denied (/data)")


def test_a_url_is_shown_without_its_user() -> None:
    assert (
        without_users("GET https://me:pw@host/x and http://token@host") == "GET https://***@host/x and http://***@host"
    )
