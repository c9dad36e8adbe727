"""Archives: every show of a station to a video, once."""
