"""Reads the settings from where people put them: the environment, `.env`, an existing `mcp-endpoint-server.cfg`.

The first of these that has a value wins; an empty value is none. All problems are found before any is reported, so
that a person mends them in one go. The value of a secret is never repeated.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dotenv.parser import parse_stream

from gateway import legacy_config
from gateway.declared import Kind, Spec, written
from gateway.quantities import parse_count, parse_seconds, parse_share, parse_size
from gateway.redaction import redact
from gateway.setting_rules import UNSIGNED, broken_rules
from gateway.settings import ENV_PREFIX, Settings, env_name, specs
from gateway.urls import CONSOLE_CUTS_AT, base_warnings, public_url_problem

_KEY_CHARS_ADVISED = 16
_REDIS_SCHEMES = ("redis", "rediss", "unix")
# What the URLs of several servers look like, and what to say to whoever writes them otherwise.
_REDIS_OF_MANY = {
    "sentinel": (
        re.compile(r"[^/]+//([^@/?#]*@)?[^@/?#]+/[^/?#]+(/[0-9]*)?(\?[^#]*)?"),
        "redis+sentinel://:password@host1:26379,host2:26379/service/0",
    ),
    "cluster": (
        re.compile(r"[^/]+//([^@/?#]*@)?[^@/?#]+/?0?(\?[^#]*)?"),
        "redis+cluster://:password@host1:6379,host2:6379",
    ),
}

# Kubernetes tells every pod of a namespace about each Service in it; one called `gateway` collides with our prefix.
_KUBERNETES_NAME = re.compile(r"GATEWAY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_KUBERNETES_PORT = re.compile(r"GATEWAY_(\w+_)?PORT")

_LEVEL_ALIASES = {"WARN": "WARNING", "FATAL": "CRITICAL", "TRACE": "DEBUG", "SUCCESS": "INFO"}


class SettingsError(Exception):
    """The gateway can't start with these settings. One text for people per problem or warning, without any secret."""

    def __init__(self, problems: list[str], warnings: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.warnings = warnings

    def __str__(self) -> str:
        lines = [f"  - {problem}\n" for problem in self.problems] + [f"  ! {warning}\n" for warning in self.warnings]
        return "配置有误，没有启动 / The configuration is wrong, nothing was started:\n" + "".join(lines)


@dataclass(frozen=True, slots=True)
class _Given:
    """One value as given, and where: the start of every message about it."""

    text: str
    where: str
    is_legacy: bool = False


def load(environ: Mapping[str, str], *, dotenv: Path | None, cwd: Path) -> tuple[Settings, list[str]]:
    """Return the settings, and warnings for people. Raise `SettingsError` with every problem there is.

    `dotenv` is the `.env` file to read, if any; an existing `mcp-endpoint-server.cfg` is looked for below `cwd`.
    """
    problems: list[str] = []
    warnings: list[str] = []
    given = _named(_env_file(dotenv, problems, warnings), f" ({dotenv})", warnings)
    given |= _named(environ, "", warnings)
    given = _legacy(given, cwd, problems, warnings) | given

    values: dict[str, Any] = {}
    for name, spec in specs().items():
        if one := given.get(name):
            try:
                values[name] = _parsed(name, spec, one)
            except ValueError as error:
                problems.append(_problem(name, spec, one, str(error)))
    settings = Settings(**values)
    # A value that could not be read stands at its default here, and a demand on that would only confuse.
    problems.extend([] if problems else broken_rules(settings))
    if problems:
        raise SettingsError(problems, warnings)
    return settings, warnings + _advice(settings, given)


def _env_file(path: Path | None, problems: list[str], warnings: list[str]) -> dict[str, str]:
    if path is None:
        return {}
    found: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for binding in parse_stream(stream):
                if binding.error:
                    line = binding.original.line
                    warnings.append(
                        f"{path}: 第 {line} 行无法理解，已忽略 / line {line} can't be understood and is ignored"
                    )
                elif binding.key and binding.value is not None:
                    found[binding.key] = binding.value
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        problems.append(f"{path}: 无法读取 / can't be read ({reason})")
    return found


def _named(source: Mapping[str, str], suffix: str, warnings: list[str]) -> dict[str, _Given]:
    known = {env_name(name): name for name in specs()}
    given: dict[str, _Given] = {}
    injected: list[str] = []
    for variable, text in source.items():
        if not variable.startswith(ENV_PREFIX):
            continue
        if _is_injected(variable, text):
            injected.append(variable)
        elif variable not in known:
            warnings.append(_unknown(variable + suffix, get_close_matches(variable, known, n=1)))
        elif text.strip():
            given[known[variable]] = _Given(text.strip(), variable + suffix)
    if injected:
        warnings.append(
            f"忽略 Kubernetes 为服务 gateway 注入的 {len(injected)} 个变量 / ignoring {len(injected)} variables that "
            f"Kubernetes injects for a Service called gateway ({min(injected)} …; enableServiceLinks: false ends that)"
        )
    return given


def _is_injected(variable: str, text: str) -> bool:
    if _KUBERNETES_NAME.fullmatch(variable):
        return True
    return _KUBERNETES_PORT.fullmatch(variable) is not None and re.match(r"(tcp|udp|sctp)://", text) is not None


def _unknown(where: str, nearest: list[str]) -> str:
    meant = (
        f"；是否指 {nearest[0]}？ / is not a setting; did you mean {nearest[0]}?" if nearest else " / is not a setting"
    )
    return f"{where}: 没有这个设置{meant}"


def _legacy(given: Mapping[str, _Given], cwd: Path, problems: list[str], warnings: list[str]) -> dict[str, _Given]:
    named = given.get("config_file")
    data_dir = given["data_dir"].text if "data_dir" in given else Settings().data_dir
    path = cwd / named.text if named else legacy_config.find(cwd, data_dir)
    if path is None:
        return {}
    try:
        config = legacy_config.read(path)
    except legacy_config.LegacyConfigError as error:
        problems.append(f"{named.where}: {error}" if named else str(error))
        return {}
    taken = sorted(config.values.keys() - given.keys())
    if taken:
        names = ", ".join(taken)
        warnings.append(f"沿用现有配置 {path}: {names} / taken over from the existing {path}: {names}")
    return {name: _Given(value.text, f"{path} {value.place}", is_legacy=True) for name, value in config.values.items()}


def _parsed(name: str, spec: Spec, given: _Given) -> Any:
    match spec.kind:
        case Kind.COUNT:
            return _ranged(spec, parse_count(given.text))
        case Kind.SIZE:
            return _ranged(spec, parse_size(given.text))
        case Kind.SECONDS:
            return _ranged(spec, parse_seconds(given.text))
        case Kind.SHARE:
            return _ranged(spec, parse_share(given.text))
        case Kind.LIST:
            return _keys(given) if name == "key" else _items(given.text)
        case Kind.TEXT:
            return _chosen(spec, given.text) if spec.choices else _checked_text(name, given.text)


def _ranged(spec: Spec, value: float) -> float:
    if not spec.low <= value <= spec.high:
        low, high = written(spec.kind, spec.low), written(spec.kind, spec.high)
        why = " — ".join(part.strip() for part in spec.reason.replace("\n", " / ").split(" / "))
        raise ValueError(f"须在 {low} 到 {high} 之间 / must be from {low} to {high} [{why}]")
    return value


def _chosen(spec: Spec, text: str) -> str:
    text = _LEVEL_ALIASES.get(text.upper(), text)
    for choice in spec.choices:
        if choice.lower() == text.lower():
            return choice
    raise ValueError(f"须为其中之一 / must be one of {', '.join(spec.choices)}")


def _checked_text(name: str, text: str) -> str:
    if name == "public_url" and (problem := public_url_problem(text)):
        raise ValueError(problem)
    if name == "redis_url":
        _check_redis_url(text)
    if name == "trace_url":
        _check_trace_url(text)
    if name == "redis_prefix" and not re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", text):
        raise ValueError(
            "只能用字母、数字和 . _ : -，最多 64 个 / may have letters, digits and . _ : - only, at most 64"
        )
    return text


def _check_redis_url(url: str) -> None:
    scheme, _, kind = url.partition("://")[0].partition("+")
    if scheme in ("redis", "rediss") and kind in _REDIS_OF_MANY:
        shape, example = _REDIS_OF_MANY[kind]
        if not shape.fullmatch(url):
            raise ValueError(
                f"应写成 {example}，密码中的特殊字符须用 %XX / "
                f"must look like {example}; special characters of a password must be percent-encoded"
            )
        return
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("不是网址 / is not a URL; a password with / or # or @ must be percent-encoded") from None
    if parts.scheme not in _REDIS_SCHEMES:
        raise ValueError(
            "须以 redis://、rediss://、unix://、redis+sentinel:// 或 redis+cluster:// 开头 / must begin with "
            "redis://, rediss:// (TLS), unix:// (a socket file), redis+sentinel://host,…/service or redis+cluster://host,…"
        )
    if parts.scheme == "unix" and not parts.path.strip("/"):
        raise ValueError("unix:// 之后须为套接字文件的路径 / needs the path of a socket file after unix://")


def _check_trace_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError(
            "须为 http 或 https 的网址，包括路径 / must be a URL with http or https and a host; what collectors take "
            "ends in /v1/traces"
        )


def _items(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


def _keys(given: _Given) -> tuple[str, ...]:
    # An existing file holds one key, whatever is in it: tokens made with it are out there.
    keys = (given.text,) if given.is_legacy else _items(given.text)
    if not given.is_legacy and any(_cut_at(key) for key in keys):
        raise ValueError(
            "含有智控台会截断网址的字符（/ & % # + ? 空格）或不可打印字符，请换成十六进制密钥 / "
            "has a character that cuts or changes the console's URL (/ & % # + ? blank), or one that is not printable "
            "ASCII; use a hexadecimal key"
        )
    return keys


def _cut_at(key: str) -> bool:
    return any(char in CONSOLE_CUTS_AT or not ("!" <= char <= "~") for char in key)


def _problem(name: str, spec: Spec, given: _Given, problem: str) -> str:
    default = written(spec.kind, getattr(Settings(), name))
    example = spec.example or default
    shown = "" if spec.is_secret else f"={redact(given.text)[:80]!r}"
    return f"{given.where}{shown}: {problem}（例如 / for example: {env_name(name)}={example}）"


def _advice(settings: Settings, given: Mapping[str, _Given]) -> list[str]:
    advice = base_warnings(settings.public_url) if settings.public_url else []
    if any(_cut_at(key) for key in settings.key):
        advice.append(
            f"{given['key'].where}: 密钥含有智控台会截断网址的字符（/ & % # + ? 空格），智控台可能连不上 / "
            "the key has a character at which the console cuts its URL (/ & % # + ? blank), so the console may fail"
        )
    if any(len(key) < _KEY_CHARS_ADVISED for key in settings.key):
        advice.append(
            f"{given['key'].where}: 密钥太短，容易被猜到；至少 {_KEY_CHARS_ADVISED} 个字符 / "
            f"the key is short and easily guessed; use {_KEY_CHARS_ADVISED} characters or more"
        )
    if UNSIGNED in settings.envelope_key:
        advice.append(
            f"{given['envelope_key'].where}: 含有 unsigned：能写 Redis 的人仍可伪造消息；所有进程都签名后请去掉 / "
            "has `unsigned` in it: whoever can write to Redis still forges messages; take it out once all workers sign"
        )
    return advice
