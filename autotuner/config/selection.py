"""What the caller asks for by name or path: presets, profiles and an SLO."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from autotuner.config import catalog, yaml_documents
from autotuner.config.context import TaskContext
from autotuner.config.layers import ConfigLayer, FileLayer
from autotuner.config.yaml_documents import Document
from autotuner.errors import ConfigError


@dataclass
class Selection:
    """Layers in the order in which they are laid, and warnings."""

    presets: list[ConfigLayer] = field(default_factory=list)
    profiles: list[ConfigLayer] = field(default_factory=list)
    slo: list[ConfigLayer] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_selection(context: TaskContext) -> Selection:
    """Find and read everything; ConfigError where something is not there."""
    asked = Selection()
    for name in context.layers:
        preset, warnings = catalog.find("preset", name)
        asked.presets += preset.layers
        asked.warnings += warnings
    for name in context.profiles:
        try:
            profile, warnings = catalog.find("profile", name)
        except ConfigError as error:
            if not context.allow_unknown_profiles or name in catalog.names("profile"):
                raise
            asked.warnings.append(f"{error.what} It was skipped, as asked for.")
            continue
        asked.profiles += profile.prefixed_layers(f"profile:{profile.name}:")
        asked.warnings += warnings
    if isinstance(context.slo_config, str):
        _read_slo(asked, context.slo_config)
    return asked


def _read_slo(selection: Selection, name: str) -> None:
    """An SLO asked for by name stands on the base SLO; a file is exactly what it says."""
    path = Path(name).expanduser()
    if catalog.looks_like_path(name) and path.is_file():
        document = yaml_documents.read(path)
        if "layers" not in yaml_documents.root_mapping(document):
            selection.slo.append(_bare_slo_layer(document, path.stem))
            return
    names = [name] if name == "base" or catalog.looks_like_path(name) else ["base", name]
    for each in names:
        slo, warnings = catalog.find("SLO", each)
        selection.slo += slo.prefixed_layers("slo:")
        selection.warnings += warnings


def _bare_slo_layer(document: Document, name: str) -> ConfigLayer:
    """Layer of a file that holds nothing but terms, or terms under `slo:`."""
    data = yaml_documents.root_mapping(document)
    above = () if set(data) == {"slo"} else ("slo",)
    places = {("data", *above, *path): place for path, place in document.places.items()}
    return FileLayer(
        name=f"slo:{name}",
        data=yaml_documents.plain_data({"slo": data} if above else data, document.source),
        document=Document(data, document.source, places),
    )
