"""Composes the stages: on Ray, or serially in this process. The only room that knows Ray."""
