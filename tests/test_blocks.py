"""Fenced blocks of a page: how they are found, and what is done with each."""

from pathlib import Path

import document_runs
import pytest

from muomni.errors import UserError
from pipelines.documents import blocks
from pipelines.documents.pages import blocks as found
from pipelines.documents.pages import outside_blocks, without_blocks

PAGE = """# A

<!-- when run: two => three; x y => z -->
<!-- before: a = 1 -->

```python
two, x y
```

- item

  ```sh
  echo `a`
    more
  ```

````markdown
```sh
no block of its own
```
````
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/p.md").write_text(PAGE)
    return tmp_path / "docs/p.md"


def test_blocks_have_their_lines_text_and_comments() -> None:
    one, two, three = found(PAGE, "p.md")
    assert (one.line, one.language, one.text) == (6, "python", "two, x y\n")
    assert one.said("before") == "a = 1" and one.said("not run") is None
    assert (two.line, two.text) == (12, "echo `a`\n  more\n")
    assert three.language == "markdown" and three.text == "```sh\nno block of its own\n```\n"
    with pytest.raises(UserError, match="p.md:1: this block is not closed"):
        found("```sh\n", "p.md")


def test_what_is_outside_of_blocks() -> None:
    bare = without_blocks(PAGE, "p.md")
    assert bare.count("\n") == PAGE.count("\n") and "echo" not in bare and "- item" in bare
    assert outside_blocks(PAGE, str.upper).count("ITEM") == 1 and "two, x y\n```" in outside_blocks(PAGE, str.upper)


def test_words_are_exchanged_and_code_is_put_before(page: Path) -> None:
    first, second = blocks.runnable(page, page.parents[1])
    assert first.text == "a = 1\nthree, z\n" and second.language == "sh"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```\nls\n```", "needs a language"),
        ("```mermaid\nls\n```", "found mermaid"),
        ("<!-- not run: -->\n```sh\nls\n```", "gives no reason"),
        ("<!-- when run: cat => dog -->\n```sh\nls\n```", "exchanges 'cat', which is not there"),
        ("```json\n{'a': 1}\n```", "no json"),
        ("```yaml\na: [\n```", "no yaml"),
    ],
)
def test_what_is_not_clear_is_told_with_page_and_line(page: Path, text: str, fault: str) -> None:
    page.write_text(f"# T\n\n{text}\n")
    (line,) = blocks.unclear(page.parents[1])
    assert line.startswith(f"docs/p.md:{3 + text.startswith('<')}: ") and fault in line


def test_commands_are_whole_lines_and_servers_are_known() -> None:
    text = "a=1  # one\ncurl x \\\n  -d '{\n  1}'\nmuomni serve &\n"
    assert document_runs.statements(text) == ["a=1  # one\n", "curl x \\\n  -d '{\n  1}'\n", "muomni serve &\n"]
    for server in ("muomni serve --port 8001", ".venv/bin/mlflow ui", "X=1 mlflow models serve -m a"):
        assert document_runs.SERVER.match(server)
    assert not document_runs.SERVER.match("muomni say serve")


def test_blocks_run_in_order_and_a_failure_has_its_line(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(page.parents[1])
    monkeypatch.setenv("TMPDIR", str(page.parents[1]))
    page.write_text(
        "```sh\nexport A=5\n```\n\n```console\n$ echo $A; echo x y; echo z\n5\n...\nz\n```\n\n"
        "```python\nimport asyncio\nb = 1\n```\n\n```python\nawait asyncio.sleep(0)\nassert b == 1\n```\n"
    )
    document_runs.run_page(page.parents[1], page)
    page.write_text("```sh\ntrue\n```\n\n```sh\nfalse\ntrue\n```\n")
    with pytest.raises(document_runs.Failed, match="docs/p.md:5: false\ntrue\nexit code 1"):
        document_runs.run_page(page.parents[1], page)
    page.write_text("```console\n$ echo 4\n5\n```\n")
    with pytest.raises(document_runs.Failed, match="prints\n4\n"):
        document_runs.run_page(page.parents[1], page)
