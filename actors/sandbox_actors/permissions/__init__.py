"""Permissions: what agents ask of people, and who decides."""

from .policy import PRESETS, Decision, Policy, Preset, Rule, ToolKind, policy_of

__all__ = ["PRESETS", "Decision", "Policy", "Preset", "Rule", "ToolKind", "policy_of"]
