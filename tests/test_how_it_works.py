"""The page about the architecture says what is so: its pictures are those of the code, its rules those of the module's sections."""

import importlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from conftest import ROOT, table_rows

import watchdog_app

TEXT = (ROOT / "docs/how-it-works.md").read_text()
MODULE = (ROOT / "watchdog_app.py").read_text()
PICTURES = sorted(path.name for path in (ROOT / "docs/pictures").glob("*.svg"))


def table(name):
    """Return the rows of the table behind the comment `name`."""
    return table_rows(re.search(rf"<!-- {name} -->\n((?:\|.*\n)+)", TEXT)[1])


# ---- the pictures ----


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder of the pictures as the script draws them now."""
    folder = tmp_path_factory.mktemp("pictures")
    subprocess.run([sys.executable, ROOT / "docs/pictures.py", folder], check=True)
    return folder


def test_pictures_are_those_that_the_script_draws(drawn):
    assert len(PICTURES) > 2 and sorted(path.name for path in drawn.iterdir()) == PICTURES


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_up_to_date_and_shown(name, drawn):
    assert (ROOT / "docs/pictures" / name).read_bytes() == (drawn / name).read_bytes()  # else: python docs/pictures.py
    assert f"](pictures/{name})" in TEXT


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_for_light_and_dark_pages_and_has_a_title(name):
    picture = ElementTree.parse(ROOT / "docs/pictures" / name).getroot()
    style = picture.find("{http://www.w3.org/2000/svg}style").text
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    used = {word for part in picture for word in part.get("class", "").split()} - {"middle", "strong", "dashed"}
    colored = [set(re.findall(r"\.(\w+) \{[^}]*(?:fill|stroke)", half)) for half in (light, dark)]
    assert picture.get("aria-label") and used and used <= colored[0] & colored[1]


def test_picture_of_a_request_has_the_steps_of_the_modules_docstring():
    line = next(line for line in MODULE.splitlines() if line.startswith(" bytes ──►"))
    steps = [step.strip().partition("(")[0] for step in line.split("──►")]
    assert len(steps) == 8
    picture = (ROOT / "docs/pictures/request.svg").read_text()
    assert [step for step in steps if not re.search(rf">{step}\b", picture)] == []


def test_picture_of_the_states_has_each_change_but_those_to_closed(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    pictures = importlib.import_module("pictures")
    changes = pictures.changes()
    assert len(changes) > 15
    assert {change for change in changes if change[1] != "CLOSED"} == pictures.CHANGES.keys() - {
        ("LINGERING", "CLOSED")
    }
    assert {state for state, following in changes if following == "CLOSED"} == pictures.PLACES.keys() - {"CLOSED"}


# ---- who may touch what ----


def lines_below(ruler):
    """Return the lines of the comment below a section's ruler."""
    below = MODULE[ruler.end() :].splitlines()[1:]
    end = next(number for number, line in enumerate(below) if not line.startswith("#"))
    return [line[1:] for line in below[:end]]


def rule_of(lines):
    """Convert a section's comment to a cell: its list of who may touch what, else its points, else its first paragraph."""
    text = re.sub(r"(?<![`\w])(_+[a-z]\w*)(?!`)", r"`\1`", "\n".join(lines))  # not as emphasis
    if listed := re.search(r" Who may touch what:\n((?:     \S.*\n?)+)", text):
        entries = re.findall(r"^     (\S.*?)  +(.*)$", listed[1], re.MULTILINE)
        return "<br>".join(f"`{names}`: {rule}".replace(", ", "`, `", names.count(",")) for names, rule in entries)
    points = [" ".join(point.split()) for point in re.findall(r"^ - (.*(?:\n   \S.*)*)", text, re.MULTILINE)]
    return "<br>".join(points) or " ".join(text.partition("\n\n")[0].split())


def rules():
    """Return the number and title of each section that says who may touch what, and what it says."""
    rulers = re.finditer(r"^# ---- (\d+\. [^:(\n]*?)(?: -+|[:(].*)$", MODULE, re.MULTILINE)
    return [
        [ruler[1].strip(), rule_of(lines)]
        for ruler in rulers
        if "# ---- 17" not in ruler[0] and (lines := lines_below(ruler))
    ]


def test_rules_are_those_of_the_sections():
    assert len(rules()) > 9
    assert table("rules") == rules()


# ---- the text ----


def test_limits_of_the_scheduler_are_those_of_the_code():
    assert f"{watchdog_app.SLOW * 1000:g} ms on average" in TEXT
    assert f"{watchdog_app.STUCK * 1000:g} ms" in TEXT
    assert f"{watchdog_app.PARKED_SECONDS:g} s" in TEXT


def test_six_things_are_classes_of_the_module():
    names = [re.findall(r"`(\w+)`", row[0]) for row in table("things")]
    assert len(names) == 6
    assert [name for row in names for name in row if not hasattr(watchdog_app, name)] == []
