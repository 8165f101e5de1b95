"""Reads the presets, profiles and SLO that the caller selects by name or path."""

from __future__ import annotations

from dataclasses import dataclass, field

from autotuner.config import catalog, yaml_documents
from autotuner.config.context import TaskContext
from autotuner.config.layers import ConfigLayer, FileLayer
from autotuner.config.yaml_documents import Document
from autotuner.errors import ConfigError
from autotuner.input_files import expand_home


@dataclass
class Selection:
    """The selected layers, each list in the order of application, and warnings."""

    presets: list[ConfigLayer] = field(default_factory=list)
    profiles: list[ConfigLayer] = field(default_factory=list)
    slo: list[ConfigLayer] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_selection(context: TaskContext) -> Selection:
    """Find and read all selected files; ConfigError if one does not exist."""
    selection = Selection()
    for name in context.layers:
        preset, warnings = catalog.find("preset", name)
        selection.presets += preset.layers
        selection.warnings += warnings
    for name in context.profiles:
        try:
            profile, warnings = catalog.find("profile", name)
        except ConfigError as error:
            if not context.allow_unknown_profiles or name in catalog.names("profile"):
                raise
            selection.warnings.append(f"{error.what} It was skipped, as requested.")
            continue
        selection.profiles += profile.prefixed_layers(f"profile:{profile.name}:")
        selection.warnings += warnings
    if isinstance(context.slo_config, str):
        _read_slo(selection, context.slo_config)
    return selection


def _read_slo(selection: Selection, name: str) -> None:
    """Add the layers of an SLO: one selected by name extends the base SLO, a file stands alone."""
    path = expand_home(name)
    if catalog.looks_like_path(name) and path.is_file():
        document = yaml_documents.read(path)
        if "layers" not in yaml_documents.root_mapping(document):
            selection.slo.append(_bare_slo_layer(document, path.stem))
            return
    names = [name] if name == "base" or catalog.looks_like_path(name) else ["base", name]
    for slo_name in names:
        slo, warnings = catalog.find("SLO", slo_name)
        selection.slo += slo.prefixed_layers("slo:")
        selection.warnings += warnings


def _bare_slo_layer(document: Document, name: str) -> ConfigLayer:
    """Layer for a file that holds only SLO terms, or only terms under `slo:`."""
    data = yaml_documents.root_mapping(document)
    prefix = () if set(data) == {"slo"} else ("slo",)
    places = {("data", *prefix, *path): place for path, place in document.places.items()}
    return FileLayer(
        name=f"slo:{name}",
        data=yaml_documents.plain_data({"slo": data} if prefix else data, document.source),
        document=Document(data, document.source, places),
    )
