"""Whatever a file or the environment holds: settings or a ConfigError of printable lines, never anything else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from velox_core.domain.errors import ConfigError
from velox_core.settings import Settings, document, load_settings
from velox_core.settings.folders import SHIPPED_ROOT
from velox_core.settings.shape import leaves

PRODUCTION = (SHIPPED_ROOT / "config" / "system_production.yaml").read_bytes()
BOUNDED = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["14:45", "max", "simulated", "zerodha", "TCS", "m:C", "0x1", "1e3", "http://a:b@c", "refuse", ""])
)
KEYS = st.sampled_from(
    sorted({str(part) for leaf in leaves() for part in leaf} | {"strategies", "name", "class_path", "token", "urls"})
) | st.text(max_size=6)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.integers(), inner, max_size=6), max_leaves=25
)


@pytest.fixture(params=["SafeLoader", "CSafeLoader"], autouse=True)
def parser(request, monkeypatch):
    if not hasattr(yaml, request.param):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(document, "_PARSER", getattr(yaml, request.param))


def check_holds(path: Path, content: bytes, environ: dict[str, str] | None = None) -> None:
    path.write_bytes(content)
    problems: list[str] = []
    try:
        loaded: Settings | None = load_settings(path, environ or {})
    except ConfigError as error:
        problems, loaded = error.problems, None
    if loaded is None:
        assert problems
        assert all(problem.isprintable() and problem for problem in problems)
    else:
        assert isinstance(loaded, Settings)
        assert loaded.risk.enable_deduplication
        assert loaded.risk.limits.loss_limit_paise > 0


@BOUNDED
@given(st.binary(max_size=300))
def test_random_bytes_load_or_are_refused(tmp_path, content):
    check_holds(tmp_path / "a.yaml", content)


@BOUNDED
@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`,#?\n\t ~0159.\\_<=\x85\u2028\ufeff", max_size=80))
def test_random_punctuation_loads_or_is_refused(tmp_path, text):
    check_holds(tmp_path / "a.yaml", text.encode())


@BOUNDED
@given(TREES)
def test_random_structures_load_or_are_refused(tmp_path, tree):
    check_holds(tmp_path / "a.yaml", yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))
    check_holds(tmp_path / "a.yaml", yaml.safe_dump({"system": tree}).encode())


@BOUNDED
@given(st.sampled_from(leaves()), TREES)
def test_random_value_at_a_real_key_loads_or_is_refused(tmp_path, leaf, value):
    tree = yaml.safe_load(PRODUCTION)
    section = tree
    for part in leaf[:-1]:
        section = section[part]
    section[leaf[-1]] = value
    check_holds(tmp_path / "a.yaml", yaml.safe_dump(tree).encode())


@BOUNDED
@given(st.integers(min_value=0, max_value=2**32))
def test_damaged_production_file_loads_or_is_refused(tmp_path, seed):
    chance = random.Random(seed)
    content = bytearray(PRODUCTION)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(content))
        content[place : place + chance.randint(0, 4)] = bytes(
            chance.choices(b"\n\t :-[]{}&*!0a\xff\x00'\"", k=chance.randint(0, 3))
        )
    check_holds(tmp_path / "a.yaml", bytes(content))


@BOUNDED
@given(
    st.dictionaries(
        st.sampled_from(["VELOX__" + "__".join(map(str, leaf[1:])).upper() for leaf in leaves()])
        | st.text(max_size=10).map(lambda name: f"VELOX__{name}"),
        st.text(max_size=30) | st.sampled_from(["5", "true", "null", "[a]", "14:45", "\udcff", "a: b", "redis://:x@h"]),
        max_size=4,
    )
)
def test_random_environment_loads_or_is_refused(tmp_path, environ):
    check_holds(tmp_path / "a.yaml", PRODUCTION, environ)
