"""Says whether this installation would work: one verdict per line, with the cure."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway import keyfile
from gateway.banner import base_of
from gateway.finding import Finding, Level, as_data, as_lines
from gateway.settings import Settings
from gateway.urls import base_warnings

_SETTINGS = "配置 configuration"


def examine(settings: Settings, warnings: Sequence[str]) -> list[Finding]:
    """Return what was found about these settings and about the Redis that they name. Changes nothing."""
    findings = [Finding(Level.OK, _SETTINGS, "可以使用 / usable"), *_warned(warnings), _key(settings)]
    if not settings.public_url:
        base = base_of(settings)
        findings += [Finding(Level.WARN, "地址 address", warning) for warning in base_warnings(base)]
    return findings + _backplane(settings)


def failed(problems: Sequence[str], warnings: Sequence[str]) -> list[Finding]:
    """Return the findings about settings that can't be used at all."""
    return [Finding(Level.FAIL, _SETTINGS, problem) for problem in problems] + _warned(warnings)


def is_usable(findings: Sequence[Finding]) -> bool:
    """True if nothing keeps the gateway from working."""
    return all(finding.level is not Level.FAIL for finding in findings)


def as_text(findings: Sequence[Finding]) -> str:
    """Return one line for each finding, its cure below it, and the verdict."""
    verdict = "可以启动 / ready to start" if is_usable(findings) else "不能启动 / not ready, see FAIL above"
    if is_usable(findings) and any(finding.level is Level.UNKNOWN for finding in findings):
        verdict = "就所知可以启动，未知的见上 / ready to start as far as is known, see UNKNOWN above"
    return "\n".join([*as_lines(findings), verdict]) + "\n"


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings for a machine."""
    return {"ok": is_usable(findings), "findings": as_data(findings)}


def _warned(warnings: Sequence[str]) -> list[Finding]:
    return [Finding(Level.WARN, _SETTINGS, warning) for warning in warnings]


def _key(settings: Settings) -> Finding:
    subject = "密钥 key"
    if settings.key:
        return Finding(Level.OK, subject, f"已设置 {len(settings.key)} 个 / {len(settings.key)} set")
    directory = Path(settings.data_dir)
    try:
        if keyfile.read(directory):
            return Finding(Level.OK, subject, f"使用保存的密钥 / the one kept in {directory} is used")
    except keyfile.KeyFileError as error:
        return Finding(Level.FAIL, subject, str(error))
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            Level.FAIL,
            subject,
            f"没有密钥，{directory} 也不可写 / there is none, and {directory} is not writable to keep a new one",
            "设置 GATEWAY_KEY 或可写的 GATEWAY_DATA_DIR / set GATEWAY_KEY, or a writable GATEWAY_DATA_DIR",
        )
    return Finding(
        Level.OK, subject, f"首次启动时生成，保存在 {directory} / made at the first start, kept in {directory}"
    )


def _backplane(settings: Settings) -> list[Finding]:
    if not settings.redis_url:
        return [Finding(Level.OK, "背板 backplane", "内存，单进程 / memory, one process")]
    from gateway.backplane.redis.probe import probe  # slow to import, and needed here only

    return asyncio.run(probe(settings.redis_url, settings.redis_prefix, settings.redis_timeout_seconds))
