"""The public Python interface to composition and profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autotuner.config import catalog
from autotuner.config.context import TaskContext
from autotuner.config.layers import ConfigLayer, Profile, check_metadata
from autotuner.errors import ConfigError, unknown_name_message

if TYPE_CHECKING:
    from autotuner.config.composition import Composition


class TaskConfigFactory:
    """Composes configurations and manages profiles."""

    @staticmethod
    def create(context: TaskContext) -> tuple[dict[str, Any], list[str]]:
        """Compose and validate: the configuration as JSON-ready data, and the names of the layers applied."""
        composition = TaskConfigFactory.compose(context)
        return composition.data, composition.layers

    @staticmethod
    def compose(context: TaskContext) -> Composition:
        """Compose and validate, with provenance and warnings."""
        from autotuner.config.composition import compose

        return compose(context)

    @staticmethod
    def register_profile(name: str, layers: Sequence[ConfigLayer], metadata: Mapping[str, Any] | None = None) -> None:
        """Register a profile for this process; it takes precedence over a file of the same name."""
        if not layers:
            raise ConfigError(f"Profile '{name}' has no layers.", remedy="Give at least one ConfigLayer.")
        check_metadata(metadata or {})
        catalog.REGISTERED_PROFILES[name] = Profile(name, tuple(layers), dict(metadata or {}))

    @staticmethod
    def unregister_profile(name: str) -> None:
        """Remove a registered profile; ConfigError if there is none of this name."""
        if name not in catalog.REGISTERED_PROFILES:
            raise ConfigError(
                unknown_name_message("registered profile", name, catalog.REGISTERED_PROFILES), remedy="Check the name."
            )
        del catalog.REGISTERED_PROFILES[name]

    @staticmethod
    def get_profile(name: str) -> Profile:
        """Find a profile by name or path; ConfigError if there is none."""
        return catalog.find("profile", name)[0]

    @staticmethod
    def list_profiles() -> list[dict[str, Any]]:
        """Describe every profile, by name: metadata, layers_count, layer_names, source, and "problem" if unreadable."""
        return catalog.describe("profile")

    @staticmethod
    def list_slos() -> list[dict[str, Any]]:
        """Describe every SLO that can be selected by name."""
        return catalog.describe("SLO")

    @staticmethod
    def list_presets() -> list[dict[str, Any]]:
        """Describe every preset: quantization and hardware layers that can be selected by name."""
        return catalog.describe("preset")
