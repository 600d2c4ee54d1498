"""`/v1/processes`: commands, run to their end or kept."""

from __future__ import annotations

from typing import get_args

from sandbox_actors.processes.limits import Holder
from sandbox_actors.processes.process import State

from ..process_bodies import ConfigBody, CreateBody, InputBody, RunBody, SignalBody
from ..process_logs import STREAMS
from ..processes import OWNERS, STOP_WITHIN_MS
from .answers import NOTHING, document
from .operation import Answer, Operation, Shape, Trouble
from .parameters import flag, header, json_body, part, query
from .schema import COUNT, FLAG, NUMBER, TEXT, always, any_of, event, integer, items, one_of, optional, record
from .troubles import JSON_BODY, OVERLOADED, SHUTTING_DOWN

__all__ = ["ID", "NO_PROCESS", "OPERATIONS"]

MOST_DIGITS = 10**18 - 1
"""Numbers in queries have at most so many."""

ID = part("id", "Of the process.", TEXT, example="proc_1")

NO_PROCESS = Trouble("not_found")
NOT_NOW = Trouble("conflict")

LIMIT_NAMES = ("cpuSeconds", "memoryBytes", "fileBytes", "openFiles", "processes", "cpus")

HELD = record({}, dict.fromkeys(LIMIT_NAMES, record({"value": NUMBER, "heldBy": items(one_of(*get_args(Holder)))})))

CONFIG = Shape(
    "ProcessConfig",
    record(
        dict.fromkeys(
            (
                "maxConcurrentProcesses",
                "defaultRunTimeoutMs",
                "maxRunTimeoutMs",
                "maxOutputBytes",
                "maxLogBytesPerProcess",
                "maxInputBytesPerRequest",
                "maxExitedProcesses",
                "maxExitedLogBytes",
                "maxTerminals",
                "terminalScrollbackBytes",
                "terminalIdleMs",
            ),
            COUNT,
        )
    ),
)

ENDED_BY = one_of("timeout", "idle")

PROCESS = Shape(
    "Process",
    record(
        {
            "id": TEXT,
            "command": TEXT,
            "args": items(TEXT),
            "tty": FLAG,
            "interactive": FLAG,
            "owner": one_of(*OWNERS),
            "status": one_of(*get_args(State)),
            "createdAtMs": COUNT,
        },
        {
            "cwd": TEXT,
            "pid": COUNT,
            "exitCode": COUNT,
            "signal": COUNT,
            "endedBy": ENDED_BY,
            "exitedAtMs": COUNT,
            "restarts": COUNT,
            "user": TEXT,
            "limits": HELD,
        },
    ),
)

RESULT = Shape(
    "RunResult",
    record(
        {
            "exitCode": optional(COUNT),
            "timedOut": FLAG,
            "stdout": TEXT,
            "stderr": TEXT,
            "stdoutTruncated": FLAG,
            "stderrTruncated": FLAG,
            "durationMs": COUNT,
        },
        {"signal": COUNT, "limits": HELD},
    ),
)

ENTRY = Shape(
    "LogEntry",
    record(
        {
            "sequence": COUNT,
            "stream": one_of("stdout", "stderr", "pty"),
            "timestampMs": COUNT,
            "data": {"type": "string", "contentEncoding": "base64"},
            "encoding": always("base64"),
            "offset": COUNT,
        }
    ),
)

GAP = record({"from": COUNT, "to": COUNT}, {"bytes": COUNT})

EXIT = record({"processId": TEXT, "exitCode": optional(COUNT)}, {"signal": COUNT, "endedBy": ENDED_BY})

LOGS = Answer(
    200,
    "What there is; with `follow=true`, then also what comes, until the process has exited.",
    {
        "application/json": record(
            {"processId": TEXT, "stream": one_of(*STREAMS), "entries": items(ENTRY)}, {"gap": GAP}
        ),
        "text/event-stream": any_of(event("log", ENTRY, numbered=True), event("gap", GAP), event("exit", EXIT)),
    },
)

WAIT = query("waitMs", "How long to wait for the end.", integer(0, MOST_DIGITS, STOP_WITHIN_MS))
KILL = query("killAfterMs", "After which time what is left is killed; else never.", integer(0, MOST_DIGITS))

STARTING = (*JSON_BODY, NOT_NOW, Trouble("stream_error"), SHUTTING_DOWN)

OPERATIONS = (
    Operation(
        "get",
        "/v1/processes/config",
        "getProcessConfig",
        "processes",
        "How many processes, how long and how much",
        (document("What holds.", CONFIG),),
    ),
    Operation(
        "post",
        "/v1/processes/config",
        "setProcessConfig",
        "processes",
        "Change that, until the server ends",
        (document("What holds from now on.", CONFIG),),
        JSON_BODY,
        body=json_body(
            ConfigBody,
            example={
                "maxConcurrentProcesses": 64,
                "defaultRunTimeoutMs": 30_000,
                "maxRunTimeoutMs": 300_000,
                "maxOutputBytes": 1 << 20,
                "maxLogBytesPerProcess": 10 << 20,
                "maxInputBytesPerRequest": 64 << 10,
            },
        ),
    ),
    Operation(
        "post",
        "/v1/processes/run",
        "runProcess",
        "processes",
        "Run a command to its end",
        (document("How it ended, and what it wrote.", RESULT),),
        STARTING,
        body=json_body(RunBody, example={"command": "echo", "args": ["hello"]}),
    ),
    Operation(
        "post",
        "/v1/processes",
        "createProcess",
        "processes",
        "Start a process, and keep it",
        (document("It runs.", PROCESS),),
        STARTING,
        body=json_body(CreateBody, example={"command": "cat", "interactive": True}),
    ),
    Operation(
        "get",
        "/v1/processes",
        "listProcesses",
        "processes",
        "All processes",
        (document("In the order of their starts.", record({"processes": items(PROCESS)})),),
        (),
        (query("owner", "Whose.", one_of(*OWNERS, default="user")),),
    ),
    Operation(
        "get",
        "/v1/processes/{id}",
        "getProcess",
        "processes",
        "One process",
        (document("As it is now.", PROCESS),),
        (NO_PROCESS,),
        (ID,),
    ),
    Operation(
        "delete",
        "/v1/processes/{id}",
        "deleteProcess",
        "processes",
        "Forget a process that has exited",
        (NOTHING,),
        (NO_PROCESS, NOT_NOW),
        (ID,),
    ),
    *(
        Operation(
            "post",
            f"/v1/processes/{{id}}/{word}",
            f"{word}Process",
            "processes",
            f"Send {signal} to the whole tree, and wait for its end",
            (document("As it is then; it may still run.", PROCESS),),
            (NO_PROCESS, OVERLOADED),
            (ID, WAIT, KILL),
        )
        for word, signal in (("stop", "SIGTERM"), ("kill", "SIGKILL"))
    ),
    Operation(
        "post",
        "/v1/processes/{id}/signal",
        "signalProcess",
        "processes",
        "Send one signal to its group, or to the job in the foreground of its terminal",
        (document("As it is now.", PROCESS),),
        (*JSON_BODY, NO_PROCESS, NOT_NOW, OVERLOADED),
        (ID,),
        json_body(SignalBody, example={"signal": "SIGWINCH"}),
    ),
    Operation(
        "get",
        "/v1/processes/{id}/logs",
        "readLogs",
        "processes",
        "The output of a process",
        (LOGS,),
        (NO_PROCESS,),
        (
            ID,
            query("stream", "Of which stream; else both, or that of the terminal.", one_of(*STREAMS)),
            query("tail", "The last so many entries.", integer(0, MOST_DIGITS)),
            query("since", "Those behind this number.", integer(0, MOST_DIGITS)),
            flag("follow", "Go on with what comes, as Server-sent events."),
            header("Last-Event-ID", "As `since`; the larger one counts.", COUNT),
        ),
    ),
    Operation(
        "post",
        "/v1/processes/{id}/input",
        "writeInput",
        "processes",
        "Give a process input, or its end",
        (document("It is taken.", record({"bytesWritten": COUNT})),),
        (*JSON_BODY, NO_PROCESS, NOT_NOW, Trouble("stream_error"), OVERLOADED),
        (ID,),
        json_body(InputBody, example={"data": "hello\n", "encoding": "text"}),
    ),
)
