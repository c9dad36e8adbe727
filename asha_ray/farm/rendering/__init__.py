"""A spec to a video: plan, chunks, who renders them, and the joining of it all."""
