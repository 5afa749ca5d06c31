"""The site: its navigation, links of pages in the root, equations, and the drawing of the graph."""

import re
from pathlib import Path
from xml.etree import ElementTree

import yaml

from pipelines.documents import graph_picture, reference, site_hooks

ROOT = Path(__file__).parents[1]


def test_a_pattern_in_the_navigation_is_the_files_that_it_matches_in_order() -> None:
    there = ["course/00-a.md", "course/01-b.md", "course/10-c.md", "log.md"]
    nav = [{"Start": ["index.md", "course/0*.md"]}, {"Empty": ["course/9*.md"]}, "log.md"]
    assert site_hooks.expand(nav, there) == [{"Start": ["index.md", "course/00-a.md", "course/01-b.md"]}, "log.md"]


def test_links_of_pages_in_the_root_lead_inside_the_site() -> None:
    text = "[a](docs/data.md#splits) [b](CONTRIBUTING.md) ![c](docs/pictures/x.png) [d](https://a.example/x.md) [e](#f)"
    assert site_hooks.LINK.sub(site_hooks.inside_site, text) == (
        "[a](data.md#splits) [b](contributing.md) ![c](pictures/x.png) [d](https://a.example/x.md) [e](#f)"
    )


def test_equations_become_mathml() -> None:
    made = site_hooks.on_page_content('<p><span class="arithmatex">\\(a &lt; b^2\\)</span></p>', None, None, None)
    assert made.startswith("<p><math") and "<msup>" in made and "&lt;" in made.replace("&#x0003C;", "&lt;")
    assert 'class="equation"' in site_hooks.on_page_content(
        '<div class="arithmatex">\\[\\frac{a}{b}\\]</div>', None, None, None
    )


def test_every_module_has_a_page_in_the_reference() -> None:
    modules = reference.modules(ROOT)
    assert {"muomni.thinker", "muomni.data.shards", "pipelines.check_graph"} <= set(modules)
    assert len(reference.pages(ROOT)) == len(modules) == len(set(modules))


def test_the_graph_is_drawn_with_every_stage_and_no_edge_that_follows_from_others() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    graph = graph_picture.stage_graph(stages)
    assert ("e-omni", "evaluate") in graph.edges and ("corpus-text", "tokens") not in graph.edges
    text = graph_picture.drawn(stages)
    ElementTree.fromstring(text)
    assert re.findall(r">([\w-]+)</text>", text) and set(re.findall(r">([\w-]+)</text>", text)) == set(stages)
    assert text == (ROOT / graph_picture.PICTURE).read_text(), "run `make figures`"
