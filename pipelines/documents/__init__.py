"""How README and docs/ are kept true: quoted code, figures, sizes, blocks that run, the site. See docs/documents.md."""
