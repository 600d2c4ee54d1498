"""What the cluster says of pods and sandboxes, in our terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cluster import Object

__all__ = ["complaint", "condition", "has_ended", "hopeless", "is_going", "is_ready", "keeper", "keeps_files"]

HOPELESS = ("CrashLoopBackOff", "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName")
"""Reasons for which a new container waits that do not go away by themselves."""

NEVER = ("InvalidMetadata", "TemplateNotFound", "WarmPoolNotFound")
"""Reasons for which a claim is not ready that do not go away by themselves."""


def condition(found: Object, type: str) -> Object:
    """A condition of the status; empty where there is none."""
    for each in found.get("status", {}).get("conditions", ()):
        if each.get("type") == type:
            return dict(each)
    return {}


def is_ready(found: Object) -> bool:
    return condition(found, "Ready").get("status") == "True" and not is_going(found)


def is_going(found: Object) -> bool:
    """Whether it is being deleted."""
    return "deletionTimestamp" in found["metadata"]


def has_ended(pod: Object) -> bool:
    """Whether it will never run again: evicted, say, which its files are with it."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def keeps_files(sandbox: Object) -> bool:
    """Whether there is a volume that outlives the pod."""
    spec = sandbox["spec"]
    volumes = spec.get("podTemplate", {}).get("spec", {}).get("volumes", ())
    return bool(spec.get("volumeClaimTemplates")) or any("persistentVolumeClaim" in each for each in volumes)


def keeper(sandbox: Object | None, pod: Object) -> str:
    """The uid of what has the files: once it is another one, they are gone."""
    owner = sandbox if sandbox is not None and keeps_files(sandbox) else pod
    return str(owner["metadata"]["uid"])


def hopeless(found: Object) -> bool:
    """Whether waiting for a new pod, or a new claim, is of no use."""
    if condition(found, "Ready").get("reason") in NEVER or has_ended(found):
        return True
    return any(each.get("reason") in HOPELESS for each in _states(found))


def complaint(found: Object | None) -> str:
    """Why something is not ready, in the cluster's words."""
    if found is None:
        return "there is none"
    status = found.get("status", {})
    heard = [_words(each) for each in _states(found)]
    for name in ("PodScheduled", "Ready"):
        each = condition(found, name)
        if each.get("status") == "False":
            heard.append(_words(each))
    heard.append(_words(status) or str(status.get("phase", "")))
    return "; ".join(dict.fromkeys(filter(None, heard))) or "nothing is known of it yet"


def _states(pod: Object) -> list[dict[str, Any]]:
    """Why containers do not run, and how they have ended."""
    states: list[dict[str, Any]] = []
    for each in pod.get("status", {}).get("containerStatuses", ()):
        now, last = each.get("state", {}), each.get("lastState", {})
        states += [state[how] for state in (now, last) for how in ("waiting", "terminated") if how in state]
    return states


def _words(told: dict[str, Any]) -> str:
    reason, message = str(told.get("reason") or ""), str(told.get("message") or "").strip()[-2000:]
    if "exitCode" in told:
        reason = f"{reason} (exit code {told['exitCode']})".strip()
    return f"{reason}: {message}" if reason and message else reason or message
