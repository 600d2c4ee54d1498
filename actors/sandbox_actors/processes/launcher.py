"""What a child does before it becomes the program, where there is more to do than to start it.

    python -I -S launcher.py report=FD [tty] [cgroup=FILE]... [rlimit=NAME:SOFT:HARD]... [user=UID:GID:GID,...] -- ARGV

It is a program of its own, because nothing may run between fork and exec in a process with threads. It joins the
control groups first, while it may, and gives up being root last. If it cannot become the program, it writes the number
of the error to the descriptor, which the program does not get.

It imports little, and nothing of ours: it stands between a client and its shell.
"""

import errno
import os
import sys

# The module behind `signal`, which itself would take as long to import as all the rest.
_signal = __import__("_signal")

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Do as the module says; returns only where that failed."""
    end = arguments.index("--")
    report = int(arguments[0].partition("=")[2])
    os.set_inheritable(report, False)
    try:
        environment = _environment()  # while we may read it
        for argument in arguments[1:end]:
            name, _, value = argument.partition("=")
            _STEPS[name](value)
        # Python ignores these, and what is ignored stays so.
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
            _signal.signal(number, _signal.SIG_DFL)
        _become_program([os.fsencode(word) for word in arguments[end + 1 :]], environment)
    except OSError as error:
        os.write(report, b"%d" % (error.errno or 0))
    except ValueError as error:
        os.write(report, str(error).encode())


def _environment() -> dict[bytes, bytes]:
    # As we got it: Python adds a variable of its own where the locale is C.
    with open("/proc/self/environ", "rb") as file:
        pairs = [line.partition(b"=") for line in file.read().split(b"\0") if line]
    return {name: value for name, _, value in pairs}


def _become_program(argv: list[bytes], environment: dict[bytes, bytes]) -> None:
    # As os.execvpe, which would import something: another user may not be able to read where Python is installed.
    program = argv[0]
    refused = OSError(errno.ENOENT, "")
    folders = [b""] if b"/" in program else environment.get(b"PATH", os.defpath.encode()).split(b":")
    for folder in folders:
        try:
            os.execve(os.path.join(folder, program), argv, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            refused = error
    raise refused


def _take_terminal(_: str) -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _join(file: str) -> None:
    with open(file, "w") as members:
        members.write("0")


def _limit(value: str) -> None:
    import resource

    name, soft, hard = value.split(":")
    number = getattr(resource, name)
    highest = resource.getrlimit(number)[1]
    limits = [int(limit) if highest < 0 else min(int(limit), highest) for limit in (soft, hard)]
    resource.setrlimit(number, (limits[0], limits[1]))


def _become(value: str) -> None:
    user, group, groups = value.split(":")
    os.setgroups([int(one) for one in groups.split(",") if one])
    os.setgid(int(group))
    os.setuid(int(user))


_STEPS = {"tty": _take_terminal, "cgroup": _join, "rlimit": _limit, "user": _become}


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.exit(127)
