"""The JSON Schema of a song spec (draft 7, which editors use for YAML), built from the keys, kinds and help texts."""

from __future__ import annotations

from typing import Any

from acestep_cli.song import modes, request, spec_keys

DRAFT = "http://json-schema.org/draft-07/schema#"
FILE_NAME = "song.schema.json"
#: The comment by which an editor finds the schema of a YAML file.
EDITOR_LINE = f"# yaml-language-server: $schema={FILE_NAME}"


def song_schema() -> dict[str, Any]:
    """Return the schema. The program refuses a little more, such as two keys that contradict each other."""
    properties = {name: key_schema(name) for name, key in spec_keys.KEYS.items() if key.group is None}
    for group, names in request.GROUPS.items():
        inside = {name: key_schema(name) for name in names}
        properties[group] = {"type": "object", "additionalProperties": False, "properties": inside}
    properties["mode"]["enum"] = list(modes.MODES)
    properties |= {name: key_schema(key) for name, key in spec_keys.SYNONYMS.items()}
    properties[spec_keys.RENDER] = {"type": "object", "description": "What a render recorded; set aside when read."}
    return {
        "$schema": DRAFT,
        "title": "A song for acestep",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "not": {
            "anyOf": [{"required": list(pair)} for pair in (*spec_keys.TEXT_FILES.items(), *spec_keys.SYNONYMS.items())]
        },
    }


def key_schema(name: str) -> dict[str, Any]:
    """Return the schema of one key."""
    key = spec_keys.KEYS[name]
    found = {"description": key.help, **key.kind.schema()}
    if examples := key.examples or key.kind.examples:
        found["examples"] = list(examples)
    return found
