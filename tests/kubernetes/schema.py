"""The schema of the chart's values: the part about `config` is made from the settings' own declarations."""

import json
import math
from typing import Any

from gateway.declared import Kind, Spec
from gateway.settings import env_name, specs
from tests.kubernetes.chart import CHART

PATH = CHART / "values.schema.json"

RESERVED = frozenset({"host", "port", "workers", "admin_host", "admin_port", "data_dir", "config_file"})
"""What the chart itself decides: ports, one process per pod, and what is in the image."""
REQUIRED = ("GATEWAY_DRAIN_SECONDS", "GATEWAY_DRAIN_GRACE_SECONDS", "GATEWAY_CLOSE_SECONDS")
"""What the chart computes with."""

_SIZE = r"^[0-9]+ *([kKmMgG]i?)?[bB]?$"


def config_names() -> list[str]:
    """The settings that may be in a ConfigMap."""
    return [env_name(name) for name, spec in specs().items() if not spec.is_secret and name not in RESERVED]


def secret_names() -> list[str]:
    """The settings that belong into the Secret."""
    return [env_name(name) for name, spec in specs().items() if spec.is_secret]


def _property(spec: Spec) -> dict[str, Any]:
    match spec.kind:
        case Kind.TEXT:
            typed: dict[str, Any] = {"type": "string", **({"enum": list(spec.choices)} if spec.choices else {})}
        case Kind.LIST:
            typed = {"type": "string"}
        case Kind.SIZE:
            return {"type": ["integer", "string"], "minimum": spec.low, "maximum": spec.high, "pattern": _SIZE}
        case Kind.COUNT:
            typed = {"type": "integer"}
        case _:
            typed = {"type": "number"}
    if spec.low > -math.inf:
        typed |= {"minimum": spec.low, "maximum": spec.high}
    return typed


def config() -> dict[str, Any]:
    """The schema of `config`: every setting that is no secret and not the chart's, with its range."""
    by_name = {env_name(name): spec for name, spec in specs().items()}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(REQUIRED),
        "properties": {
            name: {"description": by_name[name].reason} | _property(by_name[name]) for name in config_names()
        },
    }


def document() -> str:
    """The whole file: what is written by hand, with this part put in."""
    found = json.loads(PATH.read_text(encoding="utf-8"))
    found["properties"]["config"] = config()
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
