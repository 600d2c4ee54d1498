"""The application: routes on Quart, one table of problems, and the layers round it.

    guard (Host, Origin, token, CORS) → proxy to ports → body limit, or bulk bodies → Quart

It is made with the references it needs and owns no task: everything that runs longer than a request runs in the
daemon's own tree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import RequestRedirect

from sandbox_actors.archives import Archives
from sandbox_actors.errors import as_refusal
from sandbox_supervisor import ActorError

from .acp import acp_routes
from .admission import Admission
from .agents import agent_routes
from .archives import archive_routes
from .body import BodyLimit
from .bulk import Bulk
from .directory_config import directory_config_routes
from .files import file_routes
from .git import git_routes
from .guard import Guard
from .init import init_routes
from .openapi import openapi_routes
from .ports import port_routes
from .problems import Problem, endpoint_not_found, of_refusal
from .processes import process_routes
from .proxy import Proxy, is_proxied
from .remote import remote_routes
from .requests import check_query
from .searching import search_routes
from .serving import LARGEST_FRAME
from .sessions import session_routes
from .system import system_routes
from .terminals import terminal_routes
from .tickets import Tickets
from .token_routes import ticket_routes, token_routes
from .watching import watch_routes

if TYPE_CHECKING:
    from quart import Response
    from quart.wrappers.base import BaseRequestWebsocket
    from werkzeug.routing import MapAdapter

    from sandbox_actors.files import FileSystem
    from sandbox_actors.git import Git
    from sandbox_actors.installer import Installer
    from sandbox_actors.journal import Journal
    from sandbox_actors.processes import Processes
    from sandbox_actors.searching.search import Searches
    from sandbox_actors.sessions import Sessions
    from sandbox_actors.survey import Survey
    from sandbox_supervisor import Node

    from .config import Config
    from .guard import ASGIApp
    from .remote import Connections
    from .sessions import Errands
    from .streams import Streams
    from .tokens import Tokens

__all__ = ["create_app"]

log = structlog.get_logger()


def create_app(
    config: Config,
    sessions: Sessions,
    installer: Installer,
    survey: Survey,
    journal: Journal,
    streams: Streams,
    root: Node,
    files: FileSystem,
    processes: Processes,
    git: Git,
    searches: Searches,
    tokens: Tokens,
    connections: Connections,
    errands: Errands,
) -> ASGIApp:
    """The daemon's ASGI application."""
    app = _App("sandbox_http", static_folder=None)
    app.config["RESPONSE_TIMEOUT"] = None  # streams last as long as their sessions
    app.config["BODY_TIMEOUT"] = None  # bodies are complete before Quart sees them
    app.config["MAX_CONTENT_LENGTH"] = None  # and their size has been checked
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # the guard answers preflights
    app.url_map.merge_slashes = False
    app.register_blueprint(acp_routes(sessions, journal, streams, config))
    app.register_blueprint(agent_routes(survey, installer, sessions, streams))
    app.register_blueprint(directory_config_routes(sessions))
    app.register_blueprint(archive_routes(files, Archives(files)))
    app.register_blueprint(file_routes(files))
    app.register_blueprint(git_routes(git, streams))
    app.register_blueprint(port_routes())
    app.register_blueprint(process_routes(processes))
    app.register_blueprint(terminal_routes(processes, streams))
    app.register_blueprint(remote_routes(sessions, connections, journal, streams, config))
    app.register_blueprint(session_routes(sessions, journal, streams, files, errands))
    app.register_blueprint(search_routes(searches))
    app.register_blueprint(watch_routes(files, streams))
    app.register_blueprint(system_routes(root, journal, streams))
    app.register_blueprint(token_routes(tokens))
    tickets = Tickets(tokens)
    app.register_blueprint(ticket_routes(tickets, lambda path: exists(path)))
    if config.initialized:
        app.register_blueprint(init_routes())
    app.register_blueprint(openapi_routes())

    app.before_request(check_query)
    app.before_websocket(check_query)

    async def on_problem(problem: Problem) -> Response:
        return problem.response()

    async def on_refusal(error: ActorError) -> Response:
        return of_refusal(as_refusal(error)).response()

    async def on_http_exception(error: HTTPException) -> Response:
        return _of_http_exception(error).response()

    async def on_bug(error: Exception) -> Response:
        log.error("request failed unexpectedly", exc_info=error)
        return Problem("internal_error", "the server failed unexpectedly; its log says why").response()

    app.register_error_handler(Problem, on_problem)
    app.register_error_handler(ActorError, on_refusal)
    app.register_error_handler(HTTPException, on_http_exception)
    app.register_error_handler(Exception, on_bug)
    routes = app.url_map.bind("")

    def exists(path: str) -> bool:
        if is_proxied(path):
            return True
        for websocket in (False, True):
            try:
                routes.match(path, method="GET", websocket=websocket)
            except (NotFound, RequestRedirect):
                continue
            except HTTPException:
                return True
            return True
        return False

    bodies = Bulk(app, BodyLimit(app, config.max_body), config.max_upload)
    proxy = Proxy(bodies, tokens if config.guarded else None, min(config.max_body, LARGEST_FRAME), streams)
    return Guard(
        proxy,
        config.cors,
        tokens,
        Admission(tokens, tickets),
        any_host=config.guarded,
        exists=exists,
        is_proxied=is_proxied,
    )


class _App(QuartTrio):
    """Quart, whose routes do not depend on the Host: Werkzeug would fail on one that is no host name."""

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        if request is None:
            return None
        return self.url_map.bind(
            "localhost",
            url_scheme=request.scheme,
            default_method=request.method,
            path_info=request.path,
            query_args=request.query_string.decode(),
        )


def _of_http_exception(error: HTTPException) -> Problem:
    match error:
        case NotFound():
            return endpoint_not_found()
        case MethodNotAllowed():
            allowed = ",".join(sorted(error.valid_methods or ()))
            message = f"this path takes {allowed}"
            return Problem(
                "invalid_request", message, status=405, title="Method Not Allowed", headers={"Allow": allowed}
            )
        case _:
            return Problem(
                "invalid_request", error.description or error.name, status=error.code or 400, title=error.name
            )
