"""The Python side of each panel that has one: what its part of the page asks for. Panels never import each other."""
