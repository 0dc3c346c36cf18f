"""An existing `mcp-endpoint-server.cfg`, so that deployed tokens and ports keep working.

The file is the INI file of mcp-endpoint-server: `[server] host port key log_level`, `[security] allowed_origins
enable_cors`. As there, the one in the data directory is complete by itself and wins over the one beside it. Its
other settings never had an effect, or concern a server that is no longer there.
"""

import configparser
from dataclasses import dataclass
from pathlib import Path

_NAME = "mcp-endpoint-server.cfg"


class LegacyConfigError(Exception):
    """The file can't be read; the text says why, for people, without anything of its content."""


@dataclass(frozen=True, slots=True)
class LegacyValue:
    """One value as it stands in the file, and where: `[server] port`."""

    text: str
    place: str


@dataclass(frozen=True, slots=True)
class LegacyConfig:
    """What an existing file says, by the name of our setting. A setting that is absent or empty there is missing."""

    path: Path
    values: dict[str, LegacyValue]


def find(cwd: Path, data_dir: str) -> Path | None:
    """Return the existing file in place, or None."""
    places = (cwd / data_dir / f".{_NAME}", cwd / data_dir / _NAME, cwd / f".{_NAME}", cwd / _NAME)
    return next((place for place in places if place.is_file()), None)


def read(path: Path) -> LegacyConfig:
    """Return what the file says; raise `LegacyConfigError` if it can't be read."""
    # Without interpolation, since a `%` in a key is no reason to refuse the file.
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(path.read_text("utf-8-sig"))
    except OSError as error:
        raise LegacyConfigError(f"{path}: 无法读取 / can't be read ({error.strerror})") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        # The parser's own text quotes the line, and that may hold the key.
        raise LegacyConfigError(f"{path}: 不是 INI 格式 / is no INI file ({type(error).__name__})") from None
    return LegacyConfig(path, _values(parser))


def _values(parser: configparser.ConfigParser) -> dict[str, LegacyValue]:
    wanted = {
        "host": _option(parser, "host", "server"),
        "port": _option(parser, "port", "server"),
        "log_level": _option(parser, "log_level", "server"),
        # mcp-endpoint-server writes it to [server]; people put it elsewhere
        "key": _option(parser, "key", "server", *parser.sections()),
        "origins": _option(parser, "allowed_origins", "security"),
    }
    if not _is_cors_enabled(parser):
        wanted["origins"] = LegacyValue("", "[security] enable_cors")
    return {name: value for name, value in wanted.items() if value is not None}


def _option(parser: configparser.ConfigParser, option: str, *sections: str) -> LegacyValue | None:
    for section in sections:
        if text := parser.get(section, option, fallback="").strip():
            return LegacyValue(text, f"[{section}] {option}")
    return None


def _is_cors_enabled(parser: configparser.ConfigParser) -> bool:
    try:
        return parser.getboolean("security", "enable_cors", fallback=True)
    except ValueError:
        return True
