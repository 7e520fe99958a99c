"""The settings of one file as plain data: each value, and the line that it stands on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# Their values are never shown, and need a file that others cannot read.
SECRETS = frozenset(
    {
        "basic.auth.user.info",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.password",
        "schema.registry.basic.auth.user.info",
        "schema.registry.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
    }
)


@dataclass(frozen=True)
class Settings(Mapping[str, str]):
    """The settings of one file, in its order; `where(key)` is the place of a key, for messages."""

    path: Path
    entries: Mapping[str, str]
    lines: Mapping[str, int]

    def __getitem__(self, key: str) -> str:
        return self.entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"Settings({self.path}, keys={sorted(self.entries)})"  # never the values: passwords

    def where(self, key: str) -> str:
        """`file:line` of a key; the file alone for one that is not in it."""
        return f"{self.path}:{self.lines[key]}" if key in self.lines else str(self.path)

    def redact(self, text: str) -> str:
        """`text`, librdkafka's, without the values of secret settings."""
        for key in SECRETS & self.entries.keys():
            if self.entries[key]:
                text = text.replace(self.entries[key], "***")
        return text
