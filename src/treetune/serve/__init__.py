"""The server: tasks over HTTP, OpenAI's routes, a page; every answer with its decision. Extra ``serve``."""
