"""`/v1/agents`: which agents there are, and how one is installed."""

from __future__ import annotations

from typing import get_args

from sandbox_actors.description import CAPABILITIES
from sandbox_actors.installer.progress import Artifact, Step

from ..agents import InstallBody
from .answers import document, document_or_stream, stream
from .operation import Operation, Shape, Trouble
from .parameters import flag, json_body, part
from .problems import PROBLEM
from .schema import ANYTHING, COUNT, FLAG, OBJECT, TEXT, event, items, one_of, optional, record
from .troubles import JSON_BODY, NOT_ACCEPTABLE, OVERLOADED, SHUTTING_DOWN

__all__ = ["OPERATIONS"]

AGENT = part("agent", "The id of an agent, or another of its names.", TEXT, example="mock")

PROGRESS = Shape(
    "InstallProgress",
    record(
        {
            "agent": TEXT,
            "step": one_of(*get_args(Step)),
            "message": TEXT,
            "bytes": COUNT,
            "totalBytes": optional(COUNT),
        }
    ),
)

OUTCOME = Shape("InstallOutcome", record({"already_installed": FLAG, "artifacts": items(Artifact)}))

DESCRIPTION = Shape(
    "Agent",
    record(
        {
            "id": TEXT,
            "name": TEXT,
            "installed": FLAG,
            "credentialsAvailable": FLAG,
            "capabilities": record(dict.fromkeys(CAPABILITIES, FLAG)),
        },
        {
            "version": TEXT,
            "path": TEXT,
            "serverStatus": record({"status": one_of("running", "stopped")}, {"uptimeMs": COUNT}),
            "configOptions": items(OBJECT),
            "configSource": one_of("agent", "catalog"),
            "configError": TEXT,
            "description": TEXT,
            "installing": PROGRESS,
            "acp": record(
                {},
                {
                    "protocolVersion": ANYTHING,
                    "agentInfo": ANYTHING,
                    "agentCapabilities": ANYTHING,
                    "authMethods": ANYTHING,
                },
            ),
        },
    ),
)

ASKING = (
    flag("config", "Ask those that are installed for their modes and models, too."),
    flag("no_cache", "Ask also those that were asked before."),
)

EVENTS = (event("progress", PROGRESS), event("installed", OUTCOME), event("failed", PROBLEM))

OPERATIONS = (
    Operation(
        "get",
        "/v1/agents",
        "listAgents",
        "agents",
        "All agents",
        (document("The agents.", record({"agents": items(DESCRIPTION)})),),
        (SHUTTING_DOWN,),
        ASKING,
    ),
    Operation(
        "get",
        "/v1/agents/{agent}",
        "getAgent",
        "agents",
        "One agent",
        (document("The agent.", DESCRIPTION),),
        (Trouble("unsupported_agent"), SHUTTING_DOWN),
        (AGENT, *ASKING),
    ),
    Operation(
        "post",
        "/v1/agents/{agent}/install",
        "installAgent",
        "agents",
        "Install an agent, or wait for the install that is under way",
        (document_or_stream("It is there. With `Accept: text/event-stream`, how it comes.", OUTCOME, *EVENTS),),
        (*JSON_BODY, Trouble("unsupported_agent"), Trouble("install_failed"), OVERLOADED, SHUTTING_DOWN),
        (AGENT,),
        json_body(InstallBody, example={}),
    ),
    Operation(
        "get",
        "/v1/agents/{agent}/install",
        "followInstall",
        "agents",
        "The progress of an install that is under way",
        (stream("How it comes, and what comes of it.", *EVENTS, event("idle", record({"agent": TEXT}))),),
        (Trouble("unsupported_agent"), NOT_ACCEPTABLE),
        (AGENT,),
    ),
)
