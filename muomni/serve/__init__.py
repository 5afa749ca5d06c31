"""The server that clients of OpenAI's API talk to. Needs the group ``serve``; nothing else in the package uses it."""
