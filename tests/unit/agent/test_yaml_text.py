"""YAML that PyYAML reads back as it was."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from appswitch.agent.yaml_text import yaml_text

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = texts | st.integers(-(2**53), 2**53) | st.booleans() | st.none()
keys = st.from_regex("[a-z_]{2,12}", fullmatch=True).filter(
    lambda key: key not in ("no", "on", "off", "yes", "null", "true", "false")
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_round_trip(value: Any) -> None:
    text = yaml_text(value)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert yaml.safe_load(text) == value


def test_shape() -> None:
    rows = [
        {"name": "web", "labels": ["a=b"], "ports": [{"port": 80}], "none": [], "pid": 7},
        {"name": "\x1b"},
    ]
    assert yaml_text(rows) == (
        '- name: "web"\n'
        "  labels:\n"
        '    - "a=b"\n'
        "  ports:\n"
        "    - port: 80\n"
        "  none: []\n"
        "  pid: 7\n"
        '- name: "\\u001b"\n'
    )
