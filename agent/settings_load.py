"""Reads settings: a flag wins over the environment, that over the config file, that over the default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from appswitch.agent.settings import LATER, IstioSettings, Option, Settings
from appswitch.errors import UsageError

CONFIG_FLAG: Final = "--config"
CONFIG_VARIABLE: Final = "AX_CONFIG_FILE"


class HelpWanted(Exception):
    """`-h` was given; the argument is the text to print."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value as text, and where it was given, for error messages."""

    text: str
    source: str


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Settings from flags, environment and config file; raises UsageError, HelpWanted."""
    flags = dict(_flags(argv))
    path = flags.pop(CONFIG_FLAG, None)
    if path is None and environ.get(CONFIG_VARIABLE):
        path = Given(environ[CONFIG_VARIABLE], CONFIG_VARIABLE)
    given = _file(path) if path is not None else {}
    for variable in _variables():
        if environ.get(variable):
            given[variable] = Given(environ[variable], variable)
    given.update({_variable(flag): value for flag, value in flags.items()})
    for later in LATER:
        if later.variable in given:
            raise UsageError(f"{given[later.variable].source}: comes with a later release")
    settings: Settings = _build(Settings, given)
    _check_istio(settings.istio, given)
    return settings


def _check_istio(istio: IstioSettings, given: Mapping[str, Given]) -> None:
    """What has a meaning only beside something else.  Raises UsageError."""

    def need(name: str, *flags: str) -> None:
        for flag in flags:
            if (found := given.get(_variable(flag))) is not None:
                raise UsageError(f"{found.source}: has no meaning without {name}")

    if not istio.target:
        need("--istio HOST:PORT", *(choice.flag for _, choice in options(IstioSettings)))
    if istio.ca_cert is None:  # neither is sent in plaintext
        need("--istio-ca-cert FILE", "--istio-token", "--istio-cert", "--istio-key", "--istio-server-name")
    if istio.cert is None:
        need("--istio-cert FILE", "--istio-key")
    if istio.key is None:
        need("--istio-key FILE", "--istio-cert")


def help_text() -> str:
    """What `ax daemon -h` prints."""
    lines = ["Usage: ax daemon [flags]", "", "Start the AppSwitch daemon.", "", "Flags:"]
    rows = [(o.flag, o.metavar, o.help) for _, o in options(Settings)]
    rows.append((CONFIG_FLAG, "file", "Read KEY=VALUE lines with the AX_* names below"))
    rows += [(later.flag, later.metavar, f"{later.help} [later release]") for later in LATER]
    width = max(len(f"{flag} {metavar}") for flag, metavar, _ in rows)
    lines += [f"  {(flag + ' ' + metavar).strip():<{width}}  {text}" for flag, metavar, text in sorted(rows)]
    lines += ["", "Each flag can be a variable or a line of the config file: --rest-port is AX_REST_PORT;"]
    lines += [f"{CONFIG_FLAG} is {CONFIG_VARIABLE}.  A flag wins over the environment, that over the file."]
    return "\n".join(lines)


def options(kind: type[Any]) -> Iterator[tuple[str, Option]]:
    """(field name, option) of a settings class and of the classes nested in it."""
    for item in fields(kind):
        if "option" in item.metadata:
            yield item.name, item.metadata["option"]
        elif is_dataclass(item.default):
            yield from options(type(item.default))


def _variable(flag: str) -> str:
    return "AX_" + flag[2:].upper().replace("-", "_")


def _variables() -> set[str]:
    return {o.variable for _, o in options(Settings)} | {later.variable for later in LATER}


def _flags(argv: Sequence[str]) -> Iterator[tuple[str, Given]]:
    """(flag, value): `--rest-port 1`, `--rest-port=1`, `--dns`, `--dns=false`; raises UsageError."""
    known = {o.flag: o.metavar for _, o in options(Settings)} | {later.flag: later.metavar for later in LATER}
    known[CONFIG_FLAG] = "file"
    words = iter(argv)
    for word in words:
        if word in ("-h", "--help"):
            raise HelpWanted(help_text())
        flag, equals, text = word.partition("=")
        if flag not in known:
            kind = "unknown flag" if word.startswith("-") else "unexpected argument"
            raise UsageError(f"{kind} {word!r} (ax daemon -h lists the flags)")
        if not equals:
            text = next(words, "") if known[flag] else "true"
        if not text:
            raise UsageError(f"{flag}: needs a value ({known[flag] or 'true or false'})")
        yield flag, Given(text, flag)


def _file(path: Given) -> dict[str, Given]:
    """The config file's values by variable name; raises UsageError."""
    try:
        text = Path(path.text).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path.source}: cannot read {path.text!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path.source}: {path.text!r} is not UTF-8 text") from error
    found: dict[str, Given] = {}
    known = _variables()
    for count, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip()
        where = f"{path.text} line {count}"
        if not equals:
            raise UsageError(f"{where}: {line!r} is no KEY=VALUE")
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r} (keys are the AX_* names of ax daemon -h)")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        if value:
            found[key] = Given(value, f"{key} ({where})")
    return found


def _build(kind: type[Any], given: Mapping[str, Given]) -> Any:
    """An instance of a settings class from what was given; raises UsageError naming source, value, reason."""
    values: dict[str, Any] = {}
    for item in fields(kind):
        choice: Option | None = item.metadata.get("option")
        if choice is None:
            values[item.name] = _build(type(item.default), given)
        elif (value := given.get(choice.variable)) is not None:
            try:
                values[item.name] = choice.parse(value.text)
            except ValueError as reason:
                raise UsageError(f"{value.source}: {value.text!r} {reason}") from reason
    return kind(**values)
