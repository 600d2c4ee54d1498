"""What agents inherit: what is allowed, the credentials of their providers, and never what is the daemon's own."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from sandbox_actors.catalog import Agent
from sandbox_actors.catalog.environment import BASE, agent_environment
from sandbox_actors.catalog.sources import read_agents
from sandbox_actors.credentials import PROVIDERS
from sandbox_actors.redaction import looks_secret

CREDENTIALS = {variable: "given" for provider in PROVIDERS.values() for variable in provider.secrets}
OWN = {
    "SANDBOX_AGENT_TOKEN": "ours",
    "SANDBOX_AGENT_LOG_LEVEL": "ours",
    "npm_config_registry": "npm's",
    "npm_package_name": "npm's",
    "npm_x\n": "npm's",
}


def inherits(agent: Agent, *names: str, inherited: tuple[str, ...] = (), **more: str) -> set[str]:
    """Which of some variables an agent gets."""
    return set(agent_environment(agent, {**dict.fromkeys(names, "given"), **more}, inherited))


def working_with(*providers: str, **members: object) -> Agent:
    return Agent("an-agent", "An agent", credentials=list(providers), **members)  # type: ignore[arg-type]


def test_every_agent_gets_what_programs_need() -> None:
    needed = [
        "PATH", "HOME", "USER", "LANG", "LC_ALL", "TERM", "TZ", "TMPDIR", "XDG_DATA_HOME", "https_proxy", "NO_PROXY",
        "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "GIT_AUTHOR_NAME", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0",
        "SSH_AUTH_SOCK", "JAVA_HOME", "GOPATH", "PYENV_ROOT", "NVM_DIR", "VIRTUAL_ENV", "DO_NOT_TRACK",
        "MOCK_AGENT_HOME", "MOCK_AGENT_AUTH",
    ]  # fmt: skip
    for agent in (Agent("mock", "Mock"), Agent("own", "Own", command=["own"]), working_with("anthropic")):
        assert inherits(agent, *needed) == set(needed)


def test_what_is_not_on_the_list_is_not_inherited() -> None:
    kept = [
        "MY_SERVICE_PASSWORD", "DATABASE_URL", "AWS_ACCESS_KEY_ID", "KUBE_TOKEN", "SHLVL", "PWD", "OLDPWD", "_",
        "PATHS", "XPATH", "PIP_INDEX_URL", "UV_INDEX_URL", "GOPROXY", "CARGO_REGISTRY_TOKEN", "GITLAB_TOKEN",
    ]  # fmt: skip
    assert inherits(working_with("anthropic"), *kept) == set()


def test_a_pattern_of_the_base_takes_nothing_that_is_named_like_a_secret() -> None:
    assert inherits(Agent("own", "Own"), "GIT_TOKEN", "GIT_PASSWORD", "XDG_SECRET", "MY_AUTH_PROXY") == set()
    assert inherits(Agent("own", "Own"), "GIT_TOKEN", inherited=("GIT_TOKEN",)) == {"GIT_TOKEN"}
    assert not [name for name in BASE if looks_secret(name) and name != "MOCK_AGENT_AUTH"]


@pytest.mark.parametrize("inherited", [(), ("*",), ("SANDBOX_AGENT_*", "npm_*"), ("SANDBOX_AGENT_TOKEN", "*TOKEN")])
def test_what_is_the_daemons_own_is_never_inherited_whatever_is_asked_for(inherited: tuple[str, ...]) -> None:
    agent = working_with("anthropic", environment=["SANDBOX_AGENT_*", "npm_*", "*"])
    assert inherits(agent, "PATH", "MY_npm_x", inherited=inherited, **OWN) == {"PATH", "MY_npm_x"}


def test_the_user_may_let_agents_inherit_more() -> None:
    agent, names = working_with("anthropic"), ("MY_A", "MY_B", "OTHER", "X_TOKEN")
    assert inherits(agent, *names, inherited=("MY_*",)) == {"MY_A", "MY_B"}
    assert inherits(agent, *names, inherited=("OTHER", "*_TOKEN", "my_*")) == {"OTHER", "X_TOKEN"}
    assert inherits(agent, *names, inherited=("*",)) == set(names)
    assert inherits(agent, "A.B", "AxB", inherited=("A.B",)) == {"A.B"}


def test_an_agents_definition_may_name_variables_of_its_own() -> None:
    agent = working_with("anthropic", environment=["CLAUDE_*", "AWS_REGION"])
    assert inherits(agent, "CLAUDE_X", "AWS_REGION", "AWS_PROFILE") == {"CLAUDE_X", "AWS_REGION"}


# credentials


def test_an_agent_gets_the_credentials_of_its_providers_and_where_to_send_them() -> None:
    given = inherits(working_with("anthropic", "google"), *CREDENTIALS, "ANTHROPIC_BASE_URL", "OPENAI_BASE_URL")
    assert given == {*PROVIDERS["anthropic"].keys, *PROVIDERS["google"].keys, "ANTHROPIC_BASE_URL"}


def test_an_agent_of_the_users_own_gets_those_of_all_providers_and_mock_none() -> None:
    keys = {variable for provider in PROVIDERS.values() for variable in provider.keys}
    for agent in (Agent("own", "Own", command=["own"]), Agent("launcher-only", "launcher-only")):
        assert inherits(agent, *CREDENTIALS, "OPENAI_BASE_URL") == {*keys, "OPENAI_BASE_URL"}
    assert inherits(working_with("openai", command=["own"]), *CREDENTIALS) == set(PROVIDERS["openai"].keys)
    assert inherits(Agent("mock", "Mock"), *CREDENTIALS) == set()


def test_of_a_key_and_a_token_an_agent_gets_the_key() -> None:
    agent = working_with("anthropic", environment=["ANTHROPIC_*", "CLAUDE_*"])
    assert inherits(agent, "CLAUDE_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN") == {"CLAUDE_API_KEY"}
    tokens = {"CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN"}
    assert inherits(agent, *tokens) == tokens
    assert inherits(agent, *tokens, "ANTHROPIC_API_KEY", inherited=("*",)) == {"ANTHROPIC_API_KEY"}


def test_an_empty_credential_is_not_inherited_and_does_not_win() -> None:
    agent = working_with("anthropic", environment=["ANTHROPIC_*"])
    given = inherits(agent, "ANTHROPIC_AUTH_TOKEN", ANTHROPIC_API_KEY=" ", ANTHROPIC_MODEL="", inherited=("*",))
    assert given == {"ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_MODEL"}


def test_what_an_agents_definition_sets_comes_before_what_it_would_inherit() -> None:
    with_token = working_with("anthropic", env={"CLAUDE_CODE_OAUTH_TOKEN": "own"})
    assert inherits(with_token, "ANTHROPIC_API_KEY") == set()
    with_key = working_with("anthropic", env={"ANTHROPIC_API_KEY": "own"})
    assert inherits(with_key, "ANTHROPIC_AUTH_TOKEN") == set()


def test_no_shipped_agent_gets_the_credentials_of_a_stranger() -> None:
    for agent in read_agents(None).values():
        given = inherits(agent, *CREDENTIALS, inherited=(), **OWN)
        allowed = {variable for name in agent.credentials for variable in PROVIDERS[name].secrets}
        for name in given - allowed:
            assert any(fnmatchcase(name, pattern) for pattern in agent.environment), (agent.id, name)
        assert given.isdisjoint(OWN)
