"""`sandbox_agent.providers`: every provider by its name, and nothing imported that is not used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sandbox_agent import providers

PROVIDERS = sorted(name for name in providers.__all__ if name.endswith("Provider") and name != "Provider")

FOREIGN = ("docker", "kr8s", "e2b", "daytona", "modal", "vercel", "quart", "sandbox_actors", "sandbox_http")
"""Packages of providers, and of the server."""


def imported_by(statement: str) -> set[str]:
    """The foreign packages that a new interpreter has after a statement."""
    script = (
        f"import json, sys\n{statement}\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(FOREIGN) & set(json.loads(done.stdout))


@pytest.mark.parametrize("name", ["Provider", *PROVIDERS])
def test_a_provider_is_imported_without_its_extra(name: str) -> None:
    assert imported_by(f"from sandbox_agent.providers import {name}") == set()


def test_the_checks_of_conformance_import_no_extra() -> None:
    assert imported_by("import sandbox_agent.providers.conformance") == set()


def test_names_are_those_of_the_providers_themselves() -> None:
    assert len(PROVIDERS) == 8
    assert set(providers.__all__) <= set(dir(providers))
    with pytest.raises(AttributeError, match="has no attribute 'NoProvider'"):
        _ = providers.NoProvider
