"""A track to its features and stems, spread over the farm and kept in a work root."""
