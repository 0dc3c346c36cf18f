"""What the documents name exists, what they repeat is equal, and where they point there is something."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gateway.declared import written
from gateway.settings import Settings, env_name, specs
from tests.docs import settings_table
from tests.docs.markdown import Document, code_in, read
from tests.project.repository import ROOT

DOCUMENTS = [
    "README.md",
    "README.zh-CN.md",
    "docs/protocol.md",
    "docs/redis.md",
    "docs/reliability.md",
    "docs/limits.md",
    "docs/logs.md",
    "docs/configuration.md",
    "docs/compose.md",
    "docs/kubernetes.md",
    "deploy/helm/mcp-gateway/README.md",
    "deploy/kustomize/README.md",
    "docs/operations.md",
    "docs/status.md",
    "docs/tokens.md",
    "docs/admin.md",
    "docs/audit.md",
    "docs/security.md",
    "SECURITY.md",
]
SETTING = re.compile(r"GATEWAY_[A-Z_]*[A-Z]")


@pytest.fixture
def english() -> Document:
    return read("README.md")


@pytest.fixture
def chinese() -> Document:
    return read("README.zh-CN.md")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_setting_that_is_named_exists(name: str) -> None:
    known = {env_name(field) for field in specs()}
    assert set(SETTING.findall((ROOT / name).read_text())) <= known


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_default_that_is_shown_is_the_real_one(name: str) -> None:
    defaults = {env_name(field): written(spec.kind, getattr(Settings(), field)) for field, spec in specs().items()}
    shown = {
        code_in(row[0])[0]: row[1].strip("`")
        for table in read(name).tables
        for row in table[1:]
        if SETTING.fullmatch(row[0].strip("`"))
    }
    assert {setting: defaults[setting] for setting in shown} == shown


def test_the_page_of_settings_is_that_of_the_code() -> None:
    assert (ROOT / "docs/configuration.md").read_text() == settings_table.document(), (
        "python -m tests.docs.settings_table > docs/configuration.md"
    )


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    document = read(name)
    lost = []
    for link in document.links:
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        path = (document.path.parent / target).resolve() if target else document.path
        if not path.is_relative_to(ROOT) or not path.exists() or (anchor and not has_anchor(path, anchor)):
            lost.append(link)
    assert lost == []


def has_anchor(path: Path, anchor: str) -> bool:
    return path.suffix == ".md" and anchor in read(str(path.relative_to(ROOT))).anchors


def test_the_picture_is_well_formed_and_says_what_it_shows() -> None:
    picture = ElementTree.parse(ROOT / "docs/flow.svg").getroot()
    assert picture.find("{http://www.w3.org/2000/svg}title") is not None


def test_both_readmes_have_the_same_sections(english: Document, chinese: Document) -> None:
    assert [level for level, _ in english.headings] == [level for level, _ in chinese.headings]


def test_both_readmes_show_the_same_commands_and_code(english: Document, chinese: Document) -> None:
    assert [(block.language, block.bare) for block in english.blocks] == [
        (block.language, block.bare) for block in chinese.blocks
    ]


def test_both_readmes_have_the_same_tables(english: Document, chinese: Document) -> None:
    def facts(document: Document) -> list[list[list[str]]]:
        """What does not depend on the language: settings and defaults, codes and reasons, files."""
        return [[fact for row in table[1:] for fact in map(code_in, row[:2])] for table in document.tables]

    assert facts(english) == facts(chinese)


def test_both_readmes_name_the_same_things_in_the_same_sections(english: Document, chinese: Document) -> None:
    """Everything in backticks, section by section; a translation that drifted would differ."""

    def names(document: Document) -> list[list[str]]:
        sections = re.split(r"^#+ .+$", document.prose, flags=re.MULTILINE)
        return [sorted(set(code_in(section))) for section in sections]

    assert names(english) == names(chinese)


def test_both_readmes_point_to_the_same_documents(english: Document, chinese: Document) -> None:
    def targets(document: Document) -> set[str]:
        return {link for link in document.links if not link.startswith("#")} - {"README.md", "README.zh-CN.md"}

    assert targets(english) == targets(chinese)
