"""The text of docs/configuration.md, made from the settings' own declarations.

`python -m tests.docs.settings_table > docs/configuration.md` writes it anew.
"""

import math
import sys
from typing import Any

from gateway.declared import Spec, written
from gateway.settings import Settings, env_name, specs

_HEAD = """\
# 全部设置 / Every setting

环境变量，或 `.env` 里同样的名字；环境变量优先于 `.env`，`.env` 优先于现有的 `mcp-endpoint-server.cfg`。
空值等于没有设置。名字以单位结尾：`_BYTES` 可写 `512KiB`、`8MiB`，`_SECONDS` 以秒计。
值不能用时不会启动，并说明原因；不认识的 `GATEWAY_*` 会提醒，并给出最接近的名字。

Environment variables, or the same names in `.env`; the environment wins over `.env`, that over an existing
`mcp-endpoint-server.cfg`. An empty value is none. The name ends in the unit: `_BYTES` may be written `512KiB`, `8MiB`;
`_SECONDS` are seconds. A value that can't be used stops the start with the reason; an unknown `GATEWAY_*` is warned of,
with the nearest name.

本文件由设置本身生成 / This file is generated from the settings:
`python -m tests.docs.settings_table > docs/configuration.md`

| 名称 Name | 默认 Default | 可取 Range | 理由 Reason |
| --- | --- | --- | --- |
"""


def document() -> str:
    """The whole file."""
    defaults = Settings()
    return _HEAD + "".join(_row(name, spec, getattr(defaults, name)) for name, spec in specs().items())


def _row(name: str, spec: Spec, default: Any) -> str:
    cells = [f"`{env_name(name)}`", _code(written(spec.kind, default)), _range(spec), spec.reason.replace("\n", "<br>")]
    return "| " + " | ".join(cells).replace("  ", " ") + " |\n"


def _range(spec: Spec) -> str:
    if spec.choices:
        return ", ".join(_code(choice) for choice in spec.choices)
    if spec.low > -math.inf:
        return f"{written(spec.kind, spec.low)} … {written(spec.kind, spec.high)}"
    return f"例 e.g. {_code(spec.example)}" if spec.example else ""


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    sys.stdout.write(document())
