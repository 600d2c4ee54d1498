"""What a cluster keeps: objects, each with a version, and what happened to them, for those who watch."""

from __future__ import annotations

import copy
import secrets
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FOREGROUND", "Change", "Object", "Refusal", "Store", "now"]

Object: TypeAlias = "dict[str, Any]"

FOREGROUND = "foregroundDeletion"
"""The finalizer of what stays until its dependents are gone."""


class Refusal(Exception):
    """The answer is no."""

    def __init__(self, code: int, reason: str, message: str, plural: str = "", name: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": {"name": name, "kind": plural} if name else {},
            "code": code,
        }


@dataclass(frozen=True, slots=True)
class Change:
    version: int
    plural: str
    type: str
    object: Object


class Store:
    """See the module. All of it may be called by any thread.

    Attributes:
      changed: notified of each change.
      forgotten: changes up to this version are not told any more.
      quota: how many pods there may be.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.changes: list[Change] = []
        self.version = 100
        self.forgotten = 0
        self.quota: int | None = None
        self._objects: dict[tuple[str, str, str], Object] = {}

    def get(self, plural: str, namespace: str, name: str) -> Object:
        with self.changed:
            if (found := self._objects.get((plural, namespace, name))) is None:
                raise Refusal(404, "NotFound", f'{plural} "{name}" not found', plural, name)
            return copy.deepcopy(found)

    def find(self, plural: str, namespace: str, name: str) -> Object | None:
        try:
            return self.get(plural, namespace, name)
        except Refusal:
            return None

    def all(self, plural: str, namespace: str | None = None) -> list[Object]:
        with self.changed:
            return [
                copy.deepcopy(each)
                for (kind, space, _), each in sorted(self._objects.items())
                if kind == plural and namespace in (None, space)
            ]

    def everything(self) -> list[tuple[str, Object]]:
        with self.changed:
            return [(plural, copy.deepcopy(each)) for (plural, _, _), each in sorted(self._objects.items())]

    def create(self, plural: str, namespace: str, body: Object) -> Object:
        made = copy.deepcopy(body)
        metadata = made.setdefault("metadata", {})
        name = metadata["name"]
        with self.changed:
            if (plural, namespace, name) in self._objects:
                raise Refusal(409, "AlreadyExists", f'{plural} "{name}" already exists', plural, name)
            if plural == "pods" and self.quota is not None and (used := len(self.all("pods", namespace))) >= self.quota:
                told = f"exceeded quota: few, requested: pods=1, used: pods={used}, limited: pods={self.quota}"
                raise Refusal(403, "Forbidden", f'pods "{name}" is forbidden: {told}', plural, name)
            metadata |= {
                "namespace": namespace,
                "uid": f"{secrets.token_hex(4)}-0000-4000-8000-{secrets.token_hex(6)}",
                "creationTimestamp": now(),
                "generation": 1,
            }
            self._objects[plural, namespace, name] = made
            self._tell("ADDED", plural, made)
            return copy.deepcopy(made)

    def change(self, plural: str, namespace: str, name: str, do: Callable[[Object], None]) -> Object:
        """Change an object in place; no change is no event. Raises `Refusal`."""
        with self.changed:
            before = self.get(plural, namespace, name)
            after = copy.deepcopy(before)
            do(after)
            if after != before:
                self._objects[plural, namespace, name] = after
                self._tell("MODIFIED", plural, after)
            return copy.deepcopy(after)

    def delete(
        self, plural: str, namespace: str, name: str, *, foreground: bool = False, grace: int | None = None
    ) -> Object:
        """Pods end first, and what is deleted in the foreground waits for its dependents; anything else is struck."""
        with self.changed:
            found = self.get(plural, namespace, name)
            if plural != "pods" and not foreground and FOREGROUND not in found["metadata"].get("finalizers", []):
                self.strike(plural, namespace, name)
                return found
            usual = found.get("spec", {}).get("terminationGracePeriodSeconds", 30)

            def mark(each: Object) -> None:
                metadata = each["metadata"]
                metadata.setdefault("deletionTimestamp", now())
                if plural == "pods":
                    before = metadata.get("deletionGracePeriodSeconds", usual)
                    metadata["deletionGracePeriodSeconds"] = min(before, usual if grace is None else grace)
                if foreground and FOREGROUND not in metadata.get("finalizers", []):
                    metadata["finalizers"] = [*metadata.get("finalizers", []), FOREGROUND]

            return self.change(plural, namespace, name, mark)

    def strike(self, plural: str, namespace: str, name: str) -> None:
        with self.changed:
            found = self._objects.pop((plural, namespace, name), None)
            if found is not None:
                self._tell("DELETED", plural, found)

    def forget(self) -> None:
        """Have all changes so far forgotten, as a server does after a while."""
        with self.changed:
            self.changes.clear()
            self.forgotten = self.version

    def since(self, version: int, plural: str) -> list[Change]:
        with self.changed:
            return [copy.deepcopy(each) for each in self.changes if each.version > version and each.plural == plural]

    def _tell(self, type: str, plural: str, found: Object) -> None:
        self.version += 1
        found["metadata"]["resourceVersion"] = str(self.version)
        self.changes.append(Change(self.version, plural, type, copy.deepcopy(found)))
        self.changed.notify_all()


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
